-- $1 organizations, $2 members wanted, $3 cap of the images in bytes, $4 callers, the positions: $5 ids, $6 createdAt, and $7 roles as JSON
select l.*, s.analysed
from (select (extract(epoch from 'now'::timestamp) * 1000000)::bigint as analysed) s
left join (
select k.n, p.*, c.listed, c.allowed
from unnest($1::text[], $2::int[], $4::text[], $5::text[], $6::text[], $7::text[]) with ordinality
  as k(organization, wanted, caller, member_id, created_at, roles, n)
cross join lateral (
  select c.*, c.allowed and (c.admin or not c.anonymous
                             and coalesce(c.organizations ? k.organization, false)) as listed
  from (
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
) c
cross join lateral (
  with seen as materialized (
    select m."id", m."organizationId", m."userId", m."role", m."managerId", m."departmentId", m."createdAt", row_number() over (order by m."createdAt" nulls last, m."id") as place
    from (
      select m."id", m."organizationId", m."userId", m."role", m."managerId", m."departmentId", m."createdAt" from "public"."members" m
      where m."organizationId" = k.organization and c.listed
      order by m."createdAt" nulls last, m."id" limit 5000
    ) m
  ), held as materialized (
    select m."id", m."organizationId", m."userId", m."role", m."managerId", m."departmentId", m."createdAt", m.place from seen m
    where regexp_split_to_array(m."role"::text, '^[[:space:]]+|[[:space:]]*,[[:space:]]*|[[:space:]]+$') && array(select jsonb_array_elements_text(k.roles::jsonb))
      and not exists (
        select from "public"."members" d
        where d."organizationId" = m."organizationId"
          and d."userId" = m."userId" and (d."createdAt" < m."createdAt" or d."createdAt" is not null and m."createdAt" is null or d."createdAt" is not distinct from m."createdAt" and d."id" < m."id")
      )
    order by m.place limit k.wanted + 1
  )
  select array_agg(r."id") as "id", array_agg(r."email") as "email", array_agg(r."emailVerified") as "emailVerified", array_agg(r."name") as "name", array_agg(r."image") as "image", array_agg(r."isAnonymous") as "isAnonymous", array_agg(r."role") as "role", array_agg(r."banned") as "banned", array_agg(r."banReason") as "banReason", array_agg(r."banExpires") as "banExpires", array_agg(r."organizationId") as "organizationId", array_agg(r."orgRole") as "orgRole", array_agg(r."managerId") as "managerId", array_agg(r."departmentId") as "departmentId", array_agg(r."image_size") as "image_size",
       (select m."createdAt"::text from seen m where m.place = (
    case when (select count(*) from held) > k.wanted
         then (select h.place from held h order by h.place offset k.wanted - 1 limit 1)
         when (select count(*) from seen) = 5000 then 5000 end
  )
       ) as created_at,
       (select m."id"::text from seen m where m.place = (
    case when (select count(*) from held) > k.wanted
         then (select h.place from held h order by h.place offset k.wanted - 1 limit 1)
         when (select count(*) from seen) = 5000 then 5000 end
  )
       ) as member_id
  from (
select u."id"::text as "id",
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
       case when octet_length(u."image"::text) > $3::int then octet_length(u."image"::text) end as image_size
from held m
left join "public"."users" u
  on u."id" = m."userId"
order by m.place
  ) r
) p
) l on true
