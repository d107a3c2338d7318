-- $1 email, $2 organization, $3 cap of the image in bytes, $4 organization named, $5 caller, $6 organization of their token
select l.*, s.analysed
from (select (extract(epoch from 'now'::timestamp) * 1000000)::bigint as analysed) s
left join (
select k.n, u."id"::text as "id",
       u."email"::text as "email",
       coalesce(u."emailVerified", false) as "emailVerified",
       u."name"::text as "name",
       case when octet_length(u."image"::text) <= $3::int then u."image"::text end as "image",
       coalesce(u."isAnonymous", false) as "isAnonymous",
       coalesce(nullif(u."role"::text, ''), 'user') as "role",
       coalesce(u."banned", false) as "banned",
       case when (c.admin or (u."id" = c.id)) then u."banReason"::text end as "banReason",
       case when u."banExpires" at time zone 'UTC' < timestamp '10000-01-01'
            then to_char(greatest(u."banExpires" at time zone 'UTC', timestamp '0001-01-01'), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') end as "banExpires",
       m."organizationId"::text as "organizationId",
       m."role"::text as "orgRole",
       m."managerId"::text as "managerId",
       m."departmentId"::text as "departmentId",
       case when octet_length(u."image"::text) > $3::int then octet_length(u."image"::text) end as image_size, c.allowed
from (select 1::bigint as n, $1::text as key, $2::text as organization, $4::bool as named) k
cross join (
  select d.*, case when d.admin or d.anonymous then '{}'::jsonb else coalesce((
    select jsonb_object_agg(o."organizationId"::text, null::text) from "public"."members" o
    where o."userId" = d.id and o."organizationId" is not null
  ), '{}'::jsonb) end as organizations
  from (
    select a.n, a.token_organization as token_organization, v."id" as id,
           v."id" is not null and not (coalesce(v."banned", false) and coalesce(v."banExpires" > now(), true)) as allowed,
           v."id" is not null and coalesce(string_to_array(coalesce(nullif(v."role"::text, ''), 'user'), ',') && array['admin', 'superadmin']::text[], false) and not coalesce(v."isAnonymous", false) as admin, coalesce(v."isAnonymous", false) as anonymous
    from (select 1 as n, $5::text as id, $6::text as token_organization) a
    left join "public"."users" v on v."id" = a.id
  ) d
  offset 0
) c
left join lateral (
  select e."id", e."email", e."emailVerified", e."name", e."image", e."isAnonymous", e."role", e."banned", e."banReason", e."banExpires", e."createdAt" from "public"."users" e
  where e."email" = k.key
  order by e."createdAt" nulls last, e."id" limit 1
) f on true
cross join lateral (select (f."id" = c.id) is true or c.allowed and (c.admin or not c.anonymous and (
      select w.shared and p.others is not null
      from (
        select coalesce(bool_or(c.organizations ? o."organizationId"::text), false) as shared,
               count(*) as theirs
        from "public"."members" o where o."userId" = coalesce(f."id", c.id) offset 0
      ) w
      cross join lateral (
        select count(n.organization) as others
        from (
          select o."organizationId" as organization from "public"."members" o
          where o."userId" > coalesce(f."id", c.id) limit greatest(14 - w.theirs, 1)
        ) n offset 0
      ) p
    )) as visible offset 0) s
left join lateral (select f."id", f."email", f."emailVerified", f."name", f."image", f."isAnonymous", f."role", f."banned", f."banReason", f."banExpires", f."createdAt" where s.visible) u on true
left join lateral (
  select m."id", m."organizationId", m."userId", m."role", m."managerId", m."departmentId", m."createdAt" from "public"."members" m
  where m."userId" = u."id"
    and (k.named is not true
         or m."organizationId" = k.organization)
    and (c.admin or (u."id" = c.id) or c.organizations ? m."organizationId"::text)
  order by (m."organizationId" = c.token_organization) is true desc, m."createdAt" nulls last, m."id" limit case when u."id" is null then 0 else 1 end
) m on true
) l on true
