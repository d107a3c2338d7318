-- Better Auth 1.3.34, Kysely, serial ids. Written by tools/better-auth/generate.py.

create table "user" ("id" serial not null primary key, "name" text not null, "email" text not null unique, "emailVerified" boolean not null, "image" text, "createdAt" timestamptz default CURRENT_TIMESTAMP not null, "updatedAt" timestamptz default CURRENT_TIMESTAMP not null, "role" text, "banned" boolean, "banReason" text, "banExpires" timestamptz, "isAnonymous" boolean);

create table "session" ("id" serial not null primary key, "expiresAt" timestamptz not null, "token" text not null unique, "createdAt" timestamptz default CURRENT_TIMESTAMP not null, "updatedAt" timestamptz not null, "ipAddress" text, "userAgent" text, "userId" integer not null references "user" ("id") on delete cascade, "impersonatedBy" text, "activeOrganizationId" text);

create table "account" ("id" serial not null primary key, "accountId" text not null, "providerId" text not null, "userId" integer not null references "user" ("id") on delete cascade, "accessToken" text, "refreshToken" text, "idToken" text, "accessTokenExpiresAt" timestamptz, "refreshTokenExpiresAt" timestamptz, "scope" text, "password" text, "createdAt" timestamptz default CURRENT_TIMESTAMP not null, "updatedAt" timestamptz not null);

create table "verification" ("id" serial not null primary key, "identifier" text not null, "value" text not null, "expiresAt" timestamptz not null, "createdAt" timestamptz default CURRENT_TIMESTAMP not null, "updatedAt" timestamptz default CURRENT_TIMESTAMP not null);

create table "organization" ("id" serial not null primary key, "name" text not null, "slug" text not null unique, "logo" text, "createdAt" timestamptz not null, "metadata" text);

create table "member" ("id" serial not null primary key, "organizationId" integer not null references "organization" ("id") on delete cascade, "userId" integer not null references "user" ("id") on delete cascade, "role" text not null, "createdAt" timestamptz not null, "managerId" text, "departmentId" text);

create table "invitation" ("id" serial not null primary key, "organizationId" integer not null references "organization" ("id") on delete cascade, "email" text not null, "role" text, "status" text not null, "expiresAt" timestamptz not null, "inviterId" integer not null references "user" ("id") on delete cascade);

create table "jwks" ("id" serial not null primary key, "publicKey" text not null, "privateKey" text not null, "createdAt" timestamptz not null);
