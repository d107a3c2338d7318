-- $1 id, $2 organization, $3 cap of the image in bytes, $4 organization is named
select l.*, s.analysed
from (select (extract(epoch from 'now'::timestamp) * 1000000)::bigint as analysed) s
left join (
select 1::bigint as n, u."id"::text as "id",
       u."email"::text as "email",
       coalesce(u."emailVerified", false) as "emailVerified",
       u."name"::text as "name",
       case when octet_length(u."image"::text) <= $3::int then u."image"::text end as "image",
       coalesce(u."isAnonymous", false) as "isAnonymous",
       coalesce(nullif(u."role"::text, ''), 'user') as "role",
       coalesce(u."banned", false) as "banned",
       u."banReason"::text as "banReason",
       case when u."banExpires" at time zone 'UTC' < timestamp '10000-01-01'
            then to_char(greatest(u."banExpires" at time zone 'UTC', timestamp '0001-01-01'), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') end as "banExpires",
       m."organizationId"::text as "organizationId",
       m."role"::text as "orgRole",
       m."managerId"::text as "managerId",
       m."departmentId"::text as "departmentId",
       case when octet_length(u."image"::text) > $3::int then octet_length(u."image"::text) end as image_size,
       (
         select case when octet_length(a.written) <= $3::int then a.written
                     else octet_length(a.written)::text end
         from (
           select '{"createdAt":' || coalesce(case when (u."createdAt" at time zone 'UTC') >= timestamp '0001-01-01' and (u."createdAt" at time zone 'UTC') < timestamp '10000-01-01' then '"' || to_char((u."createdAt" at time zone 'UTC'), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '"' end, 'null') ||
           ',"joined":' || coalesce(case when (m."createdAt" at time zone 'UTC') >= timestamp '0001-01-01' and (m."createdAt" at time zone 'UTC') < timestamp '10000-01-01' then '"' || to_char((m."createdAt" at time zone 'UTC'), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '"' end, 'null') ||
           '}' as written
           offset 0
         ) a
       ) as "additionalFields"
from "public"."users" u
left join lateral (
  select m."id", m."organizationId", m."userId", m."role", m."managerId", m."departmentId", m."createdAt" from "public"."members" m
  where m."userId" = u."id"
    and ($4::bool is not true
         or m."organizationId" = $2::text)
  order by m."createdAt" nulls last, m."id" limit 1
) m on true
where u."id" = $1::text
) l on true
