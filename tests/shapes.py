"""The plainest tables that Better Auth could have, with one user: Ada."""

PLAIN = 'create table users (id text primary key, email text, "emailVerified" boolean, name text);'
ADA = "insert into users values ('1', 'ada@example.com', true, 'Ada');"
MEMBERS = 'create table members ("userId" text, "organizationId" text, role text);'
