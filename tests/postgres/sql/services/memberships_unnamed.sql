-- $1 id, $2 memberships wanted, $3 caller, and the position: $4 id, $5 createdAt
select l.*, s.analysed
from (select (extract(epoch from 'now'::timestamp) * 1000000)::bigint as analysed) s
left join (
select k.n, u."id"::text as user_id, p.*
from (select 1::bigint as n, $1::text as id, $2::int as wanted, $3::text as caller,
             $4::text as member_id, $5::text as created_at) k
left join "public"."users" u on u."id" = k.id
left join lateral (
select m."organizationId"::text as "organizationId",
       null::text as "organizationName",
       null::text as "organizationSlug",
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
        order by m."organizationId", m."createdAt" nulls last, m."id"
      ) m
      where k.member_id is null or (m."createdAt" > k.created_at::"pg_catalog"."timestamptz" or m."createdAt" is null and k.created_at is not null
         or m."createdAt" is not distinct from k.created_at::"pg_catalog"."timestamptz" and m."id" > k.member_id)
      order by m."createdAt" nulls last, m."id" limit k.wanted + 1
    ) m
order by m."createdAt" nulls last, m."id"
) p on true
) l on true
