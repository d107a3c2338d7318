-- Better Auth 1.2.12, Kysely, serial ids. Written by tools/better-auth/generate.py.

create table "user" ("id" serial not null primary key, "name" text not null, "email" text not null unique, "emailVerified" boolean not null, "image" text, "createdAt" timestamp not null, "updatedAt" timestamp not null, "role" text, "banned" boolean, "banReason" text, "banExpires" timestamp, "isAnonymous" boolean);

create table "session" ("id" serial not null primary key, "expiresAt" timestamp not null, "token" text not null unique, "createdAt" timestamp not null, "updatedAt" timestamp not null, "ipAddress" text, "userAgent" text, "userId" serial not null references "user" ("id"), "impersonatedBy" text, "activeOrganizationId" text);

create table "account" ("id" serial not null primary key, "accountId" text not null, "providerId" text not null, "userId" serial not null references "user" ("id"), "accessToken" text, "refreshToken" text, "idToken" text, "accessTokenExpiresAt" timestamp, "refreshTokenExpiresAt" timestamp, "scope" text, "password" text, "createdAt" timestamp not null, "updatedAt" timestamp not null);

create table "verification" ("id" serial not null primary key, "identifier" text not null, "value" text not null, "expiresAt" timestamp not null, "createdAt" timestamp, "updatedAt" timestamp);

create table "organization" ("id" serial not null primary key, "name" text not null, "slug" text not null unique, "logo" text, "createdAt" timestamp not null, "metadata" text);

create table "member" ("id" serial not null primary key, "organizationId" serial not null references "organization" ("id"), "userId" serial not null references "user" ("id"), "role" text not null, "createdAt" timestamp not null);

create table "invitation" ("id" serial not null primary key, "organizationId" serial not null references "organization" ("id"), "email" text not null, "role" text, "status" text not null, "expiresAt" timestamp not null, "inviterId" serial not null references "user" ("id"));

create table "jwks" ("id" serial not null primary key, "publicKey" text not null, "privateKey" text not null, "createdAt" timestamp not null);
