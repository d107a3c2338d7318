"""Databases as applications with Better Auth may have them: what is found in them, or said.

Some have names, types and keys of public schemas, others are made up beside these; no statement
here is theirs. Each shape is the statements after `core`, which makes users, sessions and accounts
under the names that it is given. Beside the plain ones are traps: tables that resemble Better
Auth's and are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PLAIN = 'create table users (id text primary key, email text, "emailVerified" boolean, name text);'
ADA = "insert into users values ('1', 'ada@example.com', true, 'Ada');"
MEMBERS = 'create table members ("userId" text, "organizationId" text, role text);'


@dataclass(frozen=True)
class Database:
    """Tables, and what is found in them.

    `pasted` is what the message says to set; with it, `users` and `members` are found. Without,
    `message` is part of the error, or of a hint where `starts`.
    """

    sql: str
    users: str | None = None
    members: str | None = None
    message: str = ""
    pasted: str = ""
    starts: bool = True
    settings: dict[str, str] = field(default_factory=dict)
    search_path: str = ""  # of the role


def core(
    user: str = '"user"',
    *,
    schema: str = "public",
    session: str = "session",
    account: str = "account",
    verified: str = '"emailVerified" boolean not null default false',
    more: str = "",
    id: str = "text",  # noqa: A002 - the column's name
    active: str = '"activeOrganizationId" text',
    refers: bool = True,
) -> str:
    """Return users, sessions and accounts as Better Auth makes them."""
    target = f"references {schema}.{user}" if refers else ""
    return f"""
    create schema if not exists {schema};
    create table {schema}.{user} (id {id} primary key, name text not null,
      email text not null unique, {verified}, image text, "createdAt" timestamp default now(),
      "updatedAt" timestamp default now(){", " + more if more else ""});
    create table {schema}.{session} (id text primary key, "expiresAt" timestamp, token text unique,
      "ipAddress" text, "userAgent" text, "userId" {id} not null {target}, {active});
    create table {schema}.{account} (id text primary key, "accountId" text, "providerId" text,
      "userId" {id} not null {target}, password text);"""


def member(
    table: str,
    user: str | None = '"user"',
    *,
    organization: str = '"organizationId"',
    user_id: str = '"userId"',
    more: str = "",
    id: str = "text",  # noqa: A002 - the column's name
    role: str = "role text not null",
) -> str:
    """Return a table of memberships, with a foreign key to users if they are named."""
    refers = f"references {user}" if user else ""
    return f"""
    create table {table} (id text primary key, {organization} text not null,
      {user_id} {id} not null {refers}, {role}, "createdAt" timestamp default now()
      {", " + more if more else ""});"""


JOIN_REQUEST = """
    create table join_request (organization_id text not null, user_id text not null
      references "user", role text, status text, primary key (organization_id, user_id));"""
MESSAGE = """
    create table message (id text primary key, chat_id text, organization_id text not null,
      user_id text not null references "user", role text not null, content text);"""
PROJECT_ACCESS = """
    create table project_access (user_id text not null references "user",
      organization_id text not null, role text, primary key (user_id, organization_id));"""
AUDIT_LOG = """
    create table audit_log (id text primary key, "organizationId" text, "userId" text
      references "user", role text, action text);"""
TRAPS = JOIN_REQUEST + MESSAGE + PROJECT_ACCESS + AUDIT_LOG
INVITATION = """
    create table invitation (id text primary key, "organizationId" text not null, email text,
      role text, status text, "inviterId" text not null references "user",
      "userId" text references "user");"""
TEAMS = """
    create table team (id text primary key, name text, "organizationId" text not null);
    create table "teamMember" (id text primary key, "teamId" text not null references team,
      "userId" text not null references "user");"""

RIGHT = {
    # Which tables, where each has its usual name.
    "Better Auth's own": Database(core() + member("member"), "public.user", "public.member"),
    "plural": Database(
        core("users", session="sessions", account="accounts") + member("members", "users"),
        "public.users",
        "public.members",
    ),
    "Prisma's models": Database(
        core('"User"', session='"Session"', account='"Account"') + member('"Member"', '"User"'),
        "public.User",
        "public.Member",
    ),
    "a prefix": Database(
        core("tbl_user", session="tbl_session", account="tbl_account")
        + member("tbl_member", "tbl_user"),
        "public.tbl_user",
        "public.tbl_member",
    ),
    "a prefix of two words, and none for the sessions": Database(
        core("better_auth_user") + member("better_auth_members", "better_auth_user"),
        "public.better_auth_user",
        "public.better_auth_members",
    ),
    "a schema of their own": Database(
        core(schema="auth") + member("auth.member", 'auth."user"'), "auth.user", "auth.member"
    ),
    "no foreign keys anywhere": Database(
        core(refers=False) + member("member", None), "public.user", "public.member"
    ),
    "no sessions: they are in Redis": Database(
        core() + member("member") + "drop table session", "public.user", "public.member"
    ),
    "sessions without a token, as in the first versions": Database(
        core() + "alter table session drop token;" + member("member"),
        "public.user",
        "public.member",
    ),
    "no organizations": Database(core(), "public.user", None),
    "teams and invitations, and no members yet": Database(
        core() + TEAMS + INVITATION, "public.user", None
    ),
    "teams and invitations": Database(
        core() + TEAMS + INVITATION + member("member"), "public.user", "public.member"
    ),
    "users without a usual name": Database(
        core("people") + member("member", "people"), "public.people", "public.member"
    ),
    "uuids, and an enum for roles": Database(
        core("users", id="uuid")
        + "create type level as enum ('OWNER', 'MEMBER');"
        + member("members", "users", id="uuid", role="role level not null"),
        "public.users",
        "public.members",
    ),
    "integers": Database(
        core(id="integer") + member("member", id="integer"), "public.user", "public.member"
    ),
    "domains": Database(
        "create domain user_id as text;" + core(id="user_id") + member("member", id="user_id"),
        "public.user",
        "public.member",
    ),
    "verified is a time, as in NextAuth": Database(
        core('"User"', verified='"emailVerified" timestamp(3)') + member('"Membership"', '"User"'),
        "public.User",
        "public.Membership",
    ),
    "partitioned members": Database(
        core()
        + """create table member (id text, "organizationId" text not null, "userId" text not null
               references "user", role text) partition by hash ("organizationId");
             create table member_0 partition of member for values with (modulus 1, remainder 0)""",
        "public.user",
        "public.member",
    ),
    "Supabase's own users in another schema": Database(
        """create schema auth; create table auth.users (id uuid primary key, email text,
             email_confirmed_at timestamptz, role text, is_anonymous boolean);
           create table auth.sessions (id uuid, user_id uuid references auth.users);"""
        + core("users", session="sessions", account="accounts") + member("members", "users"),
        "public.users",
        "public.members",
    ),
    "Clerk's heritage: ids of both": Database(
        core("users", more='"clerkUserId" text')
        + member("organization_members", "users", more='"clerkOrgId" text'),
        "public.users",
        "public.organization_members",
    ),
    "workspaces, called organizations in columns": Database(
        core() + member('"workspaceMembers"'), "public.user", "public.workspaceMembers"
    ),
    "members in another schema, by their foreign key": Database(
        core(schema="auth") + "create schema org;" + member("org.member", 'auth."user"'),
        "auth.user",
        "org.member",
    ),
    "organizations called businesses": Database(
        core("users")
        + "create table bizes (id text primary key, name text);"
        + member("members", "users", more='foreign key ("organizationId") references bizes'),
        "public.users",
        "public.members",
    ),
    "guests as `anonymous`": Database(
        core(more="anonymous boolean") + member("member"), "public.user", "public.member"
    ),
    # Which of several.
    "a host for each member, beside the members": Database(
        core("users", schema="auth")
        + member("auth.members", "auth.users", organization="organization_id", user_id="user_id")
        + """create table v2_users_hosts (organization_id text, user_id text
               references auth.users, host_id text, role text,
               primary key (organization_id, user_id, host_id))""",
        "auth.users",
        "auth.members",
    ),
    "members beside messages, requests, access and a log": Database(
        core() + member("member") + TRAPS, "public.user", "public.member"
    ),
    "messages, requests, access and a log, and no members": Database(
        core() + TRAPS,
        "public.user",
        None,
        message="has the columns of members, but it is called otherwise",
    ),
    "two installations, one of them named": Database(
        core(schema="blog") + member("blog.member", 'blog."user"')
        + core(schema="shop") + member("shop.member", 'shop."user"'),
        "shop.user",
        "shop.member",
        settings={"RESPONDER_USERS_TABLE": 'shop."user"'},
    ),
    "two installations without foreign keys, one of them named": Database(
        core(schema="blog", refers=False) + member("blog.member", None)
        + core(schema="shop", refers=False) + member("shop.member", None),
        "shop.user",
        "shop.member",
        settings={"RESPONDER_USERS_TABLE": "shop.user"},
    ),
    "two installations, and a search path": Database(
        core(schema="blog") + member("blog.member", 'blog."user"')
        + core(schema="shop") + member("shop.member", 'shop."user"'),
        "shop.user",
        "shop.member",
        search_path="nowhere, shop, blog",
    ),
    "a prefix of each installation in one schema": Database(
        core("blog_user", session="blog_session", account="blog_account")
        + member("blog_member", "blog_user")
        + core("shop_user", session="shop_session", account="shop_account")
        + member("shop_member", "shop_user"),
        "public.shop_user",
        "public.shop_member",
        settings={"RESPONDER_USERS_TABLE": "shop_user"},
    ),
    "two installations with one prefix, one of them without members": Database(
        core("app_user", schema="blog", refers=False)
        + member("blog.app_member", None)
        + core("app_user", schema="shop", refers=False),
        "shop.app_user",
        None,
        message="its schema has users of its own: blog.app_user",
        settings={"RESPONDER_USERS_TABLE": "shop.app_user"},
    ),
    "an application's own users": Database(
        """create table users (id int primary key, email text, email_verified boolean, name text,
             image text, created_at timestamp, updated_at timestamp);
           create table members (id int, organization_id int not null, user_id int not null
             references users, role text);"""
        + core() + member("member"),
        "public.user",
        "public.member",
    ),
    "subscribers of a newsletter, whose emails are verified": Database(
        "create table subscriber (id text, email text, email_verified boolean);" + core(),
        "public.user",
        None,
    ),
    "copies beside the tables": Database(
        core()
        + member("member")
        + """create table user_backup as table "user"; create table member_old as table member;
             create table tmp_member (like member including all);
             create table "memberCopy" (like member including all);
             create schema backup; create table backup.member (like member including all)""",
        "public.user",
        "public.member",
    ),
    "a copy to which the sessions refer, renamed away": Database(
        core()
        + member("member")
        + """alter table "user" rename to user_old;
             create table "user" (like user_old including all)""",
        "public.user",
        "public.member",
    ),
    "the members of a project, and no other": Database(
        core()
        + member("project_member", more='"projectId" text, unique ("projectId", "userId")'),
        "public.user",
        None,
        message="its members are those of projectId",
    ),
    "the members of teams and of organizations": Database(
        core() + member("team_member", more="team_id text") + member("organization_member"),
        "public.user",
        "public.organization_member",
    ),
    "two that end in members, one of them unique": Database(
        core()
        + member("workspace_members")
        + member("org_members", more='unique ("organizationId", "userId")'),
        "public.user",
        "public.org_members",
    ),
    "the members of a board, by its foreign key in a unique one": Database(
        core()
        + "create table panel (id text primary key);"
        + member("board_members", more='panel text references panel, unique (panel, "userId")'),
        "public.user",
        None,
        message="its members are those of panel",
    ),
    "the members of a board, by their name": Database(
        core() + member('"boardMembers"', more="board text"),
        "public.user",
        None,
        message="its members are those of board",
    ),
    "members in an organization once for each role": Database(
        core()
        + "create table roles (name text primary key);"
        + member(
            "org_members",
            role="role text references roles",
            more='unique ("organizationId", "userId", role)',
        ),
        "public.user",
        "public.org_members",
    ),
    "members that refer to other users": Database(
        core()
        + "create table customer (id text primary key);"
        + member("members", "customer"),
        "public.user",
        None,
        message="userId refers to public.customer",
    ),
    "members that refer to another column of the users": Database(
        core(id="int", more="number int unique") + member("member", '"user" (number)', id="int"),
        "public.user",
        None,
        message="userId refers to public.user.number, which is not read as the id",
    ),
    "members and sessions that refer to another column than the id": Database(
        core(id="int", more="number int unique", refers=False)
        + """alter table session add foreign key ("userId") references "user" (number);"""
        + member("member", '"user" (number)', id="int"),
        "public.user",
        "public.member",
        settings={"RESPONDER_COLUMNS": "user.id=number"},
    ),
    "views beside the tables": Database(
        core()
        + member("member")
        + """create schema api; create view api.users as table "user";
             create view api.members as table member""",
        "public.user",
        "public.member",
    ),
    "views by their name": Database(
        core(schema="internal")
        + member("internal.member", 'internal."user"')
        + """create schema api; create view api.users as table internal."user";
             create view api.members as table internal.member""",
        "api.users",
        "api.members",
        settings={"RESPONDER_USERS_TABLE": "api.users"},
    ),
    "a half-done migration": Database(
        core(more='"banExpires" timestamp, ban_expires timestamp') + member("member"),
        "public.user",
        "public.member",
        message="public.user has banExpires, which is read, and ban_expires",
    ),
}  # fmt: skip

WRONG = {
    "isEmailVerified": Database(
        core('"User"', verified='"isEmailVerified" boolean'),
        "public.User",
        None,
        "public.User is what sessions refer to, but has no emailVerified; near it: isEmailVerified",
        "RESPONDER_COLUMNS=user.emailVerified=isEmailVerified",
        starts=False,
    ),
    "is_email_verified": Database(
        core("users", verified="is_email_verified boolean") + member("members", "users"),
        "public.users",
        "public.members",
        "public.users is what sessions refer to, but has no emailVerified",
        "RESPONDER_COLUMNS=user.emailVerified=is_email_verified",
        starts=False,
    ),
    "verified, beside customers whose email is": Database(
        core(verified="verified boolean")
        + "create table users (id text, email text, email_verified boolean)",
        "public.user",
        None,
        "public.user is what sessions refer to, but has no emailVerified; near it: verified",
        "RESPONDER_COLUMNS=user.emailVerified=verified",
        starts=False,
    ),
    "no word of verified": Database(
        core(verified="locale text") + member("member"),
        "public.user",
        "public.member",
        "public.user is what sessions refer to, but has no emailVerified",
        "RESPONDER_COLUMNS=user.emailVerified=",
        starts=False,
    ),
    "email_address, as in an example of Better Auth's own": Database(
        core("users") + "alter table users rename email to email_address;"
        + member("members", "users"),
        "public.users",
        "public.members",
        "public.users is what sessions refer to, but has no email; near it: email_address",
        "RESPONDER_COLUMNS=user.email=email_address",
        starts=False,
    ),
    "email_address, beside customers who have an email": Database(
        core(verified="verified boolean")
        + 'alter table "user" rename email to email_address;'
        + "create table users (id text, email text, email_verified boolean)",
        "public.user",
        None,
        "public.user is what sessions refer to, but has no email; near it: email_address",
        "RESPONDER_COLUMNS=user.email=email_address,user.emailVerified=verified",
        starts=False,
    ),
    "email_address, and nothing refers to it": Database(
        core("users", refers=False) + "alter table users rename email to email_address",
        "public.users",
        None,
        "public.users is called as users are, but has no email; near it: email_address",
        "RESPONDER_COLUMNS=user.email=email_address",
        starts=False,
    ),
    "an id that is called otherwise": Database(
        core() + 'alter table "user" rename id to user_id;' + member("member"),
        "public.user",
        "public.member",
        "public.user is what sessions refer to, but has no id; near it: user_id",
        "RESPONDER_COLUMNS=user.id=user_id",
        starts=False,
    ),
    "tenants, as the sessions say": Database(
        core(active='"activeTenantId" text') + member("member", organization='"tenantId"'),
        "public.user",
        "public.member",
        "public.member is called as members are, but has no organizationId; near it: tenantId "
        "(sessions have activeTenantId)",
        "RESPONDER_COLUMNS=member.organizationId=tenantId",
    ),
    "workspaces, as the sessions say": Database(
        core("users", active="active_workspace_id text")
        + member("memberships", "users", organization="workspace_id", user_id="user_id"),
        "public.users",
        "public.memberships",
        "near it: workspace_id (sessions have active_workspace_id)",
        "RESPONDER_COLUMNS=member.organizationId=workspace_id",
    ),
    "companies": Database(
        core() + member("company_member", organization="company_id"),
        "public.user",
        "public.company_member",
        "has no organizationId; near it: company_id",
        "RESPONDER_COLUMNS=member.organizationId=company_id",
    ),
    "org_id": Database(
        core("users") + member("members", "users", organization="org_id", user_id="user_id"),
        "public.users",
        "public.members",
        "has no organizationId; near it: org_id",
        "RESPONDER_COLUMNS=member.organizationId=org_id",
    ),
    "org_id, beside the members of channels": Database(
        core() + member("member", organization="org_id") + member("channel_members"),
        "public.user",
        "public.member",
        "public.member is called as members are, but has no organizationId; near it: org_id",
        "RESPONDER_COLUMNS=member.organizationId=org_id",
        starts=False,
    ),
    "org_id, beside members of organizations": Database(
        core() + member("member", organization="org_id") + member("organization_members"),
        "public.user",
        "public.organization_members",
        "or RESPONDER_MEMBERS_TABLE=public.organization_members, if public.organization_members is",
        "RESPONDER_MEMBERS_TABLE=public.organization_members",
        starts=False,
    ),
    "memberships without roles": Database(
        core() + member("memberships", role="since date"),
        "public.user",
        "public.memberships",
        "public.memberships is called as members are, but has no role",
        "RESPONDER_MEMBERS_TABLE=public.memberships",
    ),
    "memberships without roles or a name": Database(
        core()
        + """create table user_organization (user_id text references "user",
               organization_id text, primary key (user_id, organization_id))""",
        "public.user",
        "public.user_organization",
        "public.user_organization has each user once in an organization, but has no role",
        "RESPONDER_MEMBERS_TABLE=public.user_organization",
    ),
    "a table of members that is called otherwise": Database(
        core() + member("employment"),
        "public.user",
        "public.employment",
        "public.employment has the columns of members, but it is called otherwise",
        "RESPONDER_MEMBERS_TABLE=public.employment",
    ),
    "members without a foreign key, in another schema": Database(
        core() + "create schema org;" + member("org.members", None),
        "public.user",
        "org.members",
        "no foreign key leads from its user to the users",
        "RESPONDER_MEMBERS_TABLE=org.members",
    ),
    "members of which the user may be null": Database(
        core()
        + member("org_member")
        + 'alter table org_member alter "userId" drop not null',
        "public.user",
        "public.org_member",
        "its user or its organization may be null",
        "RESPONDER_MEMBERS_TABLE=public.org_member",
    ),
    "members and members": Database(
        core() + member("member") + member("members"),
        "public.user",
        "public.member",
        "several tables could be Better Auth's: public.member, public.members; "
        "RESPONDER_MEMBERS_TABLE decides",
        "RESPONDER_MEMBERS_TABLE=public.member",
        starts=False,
    ),
    "a name against a foreign key": Database(
        core() + member("member", None) + member("organization_member"),
        "public.user",
        "public.member",
        "public.member, public.organization_member; RESPONDER_MEMBERS_TABLE decides",
        "RESPONDER_MEMBERS_TABLE=public.member",
        starts=False,
    ),
    "two installations": Database(
        core(schema="blog") + member("blog.member", 'blog."user"')
        + core(schema="shop") + member("shop.member", 'shop."user"'),
        "blog.user",
        "blog.member",
        "could be Better Auth's: blog.user, shop.user; RESPONDER_USERS_TABLE decides",
        "RESPONDER_USERS_TABLE=blog.user",
        starts=False,
    ),
    "two users, and nothing refers to them": Database(
        core(refers=False) + core("users", schema="crm", refers=False),
        "crm.users",
        None,
        "crm.users, public.user; RESPONDER_USERS_TABLE decides",
        "RESPONDER_USERS_TABLE=crm.users",
        starts=False,
    ),
    "users that are called otherwise": Database(
        core("human", refers=False) + "alter table human drop image",
        "public.human",
        None,
        "public.human has the columns of Better Auth's users, but no session or account refers",
        "RESPONDER_USERS_TABLE=public.human",
        starts=False,
    ),
    "a copy alone": Database(
        core() + 'alter table "user" rename to user_backup',
        "public.user_backup",
        None,
        "public.user_backup has the columns of Better Auth's users, but its name says copy",
        "RESPONDER_USERS_TABLE=public.user_backup",
        starts=False,
    ),
    "members in a copy alone": Database(
        core() + member("member_new"),
        "public.user",
        "public.member_new",
        "public.member_new has the columns of members, but its name says copy",
        "RESPONDER_MEMBERS_TABLE=public.member_new",
    ),
    "members to be, alone": Database(
        core() + member("pending_members"),
        "public.user",
        "public.pending_members",
        "public.pending_members has the columns of members, but its name says that they are not",
        "RESPONDER_MEMBERS_TABLE=public.pending_members",
    ),
    "members no more, beside members that are called otherwise": Database(
        core() + member('"formerMember"') + member("organization_users"),
        "public.user",
        "public.organization_users",
        "public.organization_users has the columns of members, but it is called otherwise",
        "RESPONDER_MEMBERS_TABLE=public.organization_users",
    ),
    "a role of the platform": Database(
        core(more='banned boolean, "platformRole" text') + member("member"),
        "public.user",
        "public.member",
        "public.user has banned, but no role; near it: platformRole",
        "RESPONDER_COLUMNS=user.role=platformRole",
    ),
    "an avatar": Database(
        core(verified='"emailVerified" boolean, avatar text') + 'alter table "user" drop image',
        "public.user",
        None,
        "public.user has no image; near it: avatar",
        "RESPONDER_COLUMNS=user.image=avatar",
    ),
    "memberships that are deleted by a flag": Database(
        core() + member("member", more="is_deleted boolean not null default false"),
        "public.user",
        "public.member",
        "public.member has no deletedAt; near it: is_deleted",
        "RESPONDER_COLUMNS=member.deletedAt=is_deleted",
    ),
    "memberships that end": Database(
        core() + member("member", more='"removedAt" timestamp'),
        "public.user",
        "public.member",
        "public.member has no deletedAt; near it: removedAt",
        "RESPONDER_COLUMNS=member.deletedAt=removedAt",
    ),
    "guests by a word": Database(
        core(more="is_guest text"),
        "public.user",
        None,
        "public.user has no isAnonymous; near it: is_guest",
        "RESPONDER_COLUMNS=user.isAnonymous=is_guest",
    ),
    "a column of the wrong name by hand": Database(
        core(active='"activeTenantId" text') + member("member", organization='"tenantId"'),
        "public.user",
        "public.member",
        "near it: tenantId (sessions have activeTenantId)",
        "RESPONDER_COLUMNS=user.name=email,member.organizationId=tenantId",
        settings={"RESPONDER_COLUMNS": "user.name=email"},
    ),
}  # fmt: skip
