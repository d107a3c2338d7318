"""The SQL of the Python peers, as one would write it for these tables."""

# A request for one user names no organization here, so the membership that speaks is the earliest.

USER = """
u.id, u.email, u."emailVerified", u.name, u.image,
coalesce(u."isAnonymous", false) as "isAnonymous", coalesce(nullif(u.role, ''), 'user') as role,
coalesce(u.banned, false) as banned, u."banReason", u."banExpires",
m."organizationId", m.role as "orgRole", m."managerId", m."departmentId"
"""
WITH_MEMBERSHIP = f"""
select {USER} from users u
left join lateral (
  select * from members m where m."userId" = u.id order by m."createdAt", m.id limit 1
) m on true
"""
GET = f"{WITH_MEMBERSHIP} where u.id = $1"
BY_EMAIL = f'{WITH_MEMBERSHIP} where u.email = lower($1) order by u."createdAt", u.id limit 1'
GET_MANY = f"{WITH_MEMBERSHIP} where u.id = any($1::text[])"

# One row without an organization, of a user without memberships; none where there is no user.
MEMBERSHIPS = """
select m."organizationId", o.name as "organizationName", o.slug as "organizationSlug",
  m.role as "orgRole", m."managerId", m."departmentId", m."createdAt", m.id as "memberId"
from users u
left join lateral (
  select * from members where "userId" = u.id order by "createdAt", id limit $2 + 1
) m on true
left join organizations o on o.id = m."organizationId"
where u.id = $1
order by m."createdAt", m.id
"""

# One more than the page, to know whether there is another.
ORG_LIST = f"""
select {USER}, m.id as "memberId", m."createdAt"::text as "memberSince"
from (
  select * from members where "organizationId" = $1 order by "createdAt", id limit $2 + 1
) m
join users u on u.id = m."userId"
order by m."createdAt", m.id
"""
