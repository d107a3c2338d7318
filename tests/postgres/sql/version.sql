select (
  select a.attrelid || ':' || sum(a.xmin::text::bigint) from pg_catalog.pg_attribute a
  where a.attrelid = '"public"."users"'::regclass and a.attnum > 0 group by a.attrelid
) || ' ' || (
  select a.attrelid || ':' || sum(a.xmin::text::bigint) from pg_catalog.pg_attribute a
  where a.attrelid = '"public"."members"'::regclass and a.attnum > 0 group by a.attrelid
) || ' ' || (
  select a.attrelid || ':' || sum(a.xmin::text::bigint) from pg_catalog.pg_attribute a
  where a.attrelid = '"public"."organizations"'::regclass and a.attnum > 0 group by a.attrelid
) as version
