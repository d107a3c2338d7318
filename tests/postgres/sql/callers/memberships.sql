-- $1 id, $2 memberships wanted, $3 caller, and the position: $4 id, $5 createdAt
select l.*, s.analysed
from (select (extract(epoch from 'now'::timestamp) * 1000000)::bigint as analysed) s
left join (
select k.n, u."id"::text as user_id, p.*, c.allowed
from (select 1::bigint as n, $1::text as id, $2::int as wanted, $3::text as caller,
             $4::text as member_id, $5::text as created_at) k
cross join lateral (
  select d.*, case when d.admin or d.anonymous then '{}'::jsonb else coalesce((
    select jsonb_object_agg(o."organizationId"::text, null::text) from "public"."members" o
    where o."userId" = d.id and o."organizationId" is not null
  ), '{}'::jsonb) end as organizations
  from (
    select a.n, a.token_organization as token_organization, v."id" as id,
           v."id" is not null and not (coalesce(v."banned", false) and coalesce(v."banExpires" > now(), true)) as allowed,
           v."id" is not null and coalesce(string_to_array(coalesce(nullif(v."role"::text, ''), 'user'), ',') && array['admin', 'superadmin']::text[], false) and not coalesce(v."isAnonymous", false) as admin, coalesce(v."isAnonymous", false) as anonymous
    from (select 1 as n, k.caller as id, null::text as token_organization) a
    left join "public"."users" v on v."id" = a.id
  ) d
  offset 0
) c
cross join lateral (select (k.id = c.id) is true or c.allowed and (c.admin or not c.anonymous and (
      select w.shared and p.others is not null
      from (
        select coalesce(bool_or(c.organizations ? o."organizationId"::text), false) as shared,
               count(*) as theirs
        from "public"."members" o where o."userId" = k.id offset 0
      ) w
      cross join lateral (
        select count(n.organization) as others
        from (
          select o."organizationId" as organization from "public"."members" o
          where o."userId" > k.id limit greatest(14 - w.theirs, 1)
        ) n offset 0
      ) p
    )) as visible offset 0) s
left join lateral (
  select e."id" from "public"."users" e
  where e."id" = case when s.visible then k.id end
) u on true
left join lateral (
select m."organizationId"::text as "organizationId",
       g."name"::text as "organizationName",
       g."slug"::text as "organizationSlug",
       m."role"::text as "orgRole",
       m."managerId"::text as "managerId",
       m."departmentId"::text as "departmentId",
       case when m."createdAt" at time zone 'UTC' < timestamp '10000-01-01'
            then to_char(greatest(m."createdAt" at time zone 'UTC', timestamp '0001-01-01'), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') end as "createdAt",
       m."createdAt"::text as position, m."id"::text as member_id
from (
      select m."id", m."organizationId", m."userId", m."role", m."managerId", m."departmentId", m."createdAt" from (
        select distinct on (m."organizationId") m."id", m."organizationId", m."userId", m."role", m."managerId", m."departmentId", m."createdAt" from "public"."members" m
        where m."userId" = u."id" and m."organizationId" is not null
          and (c.admin or u."id" = c.id or c.organizations ? m."organizationId"::text)
        order by m."organizationId", m."createdAt" nulls last, m."id"
      ) m
      where k.member_id is null or (m."createdAt" > k.created_at::"pg_catalog"."timestamptz" or m."createdAt" is null and k.created_at is not null
         or m."createdAt" is not distinct from k.created_at::"pg_catalog"."timestamptz" and m."id" > k.member_id)
      order by m."createdAt" nulls last, m."id" limit k.wanted + 1
    ) m
left join lateral (select g."id", g."name", g."slug" from "public"."organizations" g where g."id" = m."organizationId" limit 1) g on true
order by m."createdAt" nulls last, m."id"
) p on true
) l on true
