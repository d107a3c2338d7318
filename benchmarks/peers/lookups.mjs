// What the JavaScript peers share: the SQL as one would write it for these tables, and the replies.

const ADDITIONAL =
  `, json_build_object('phoneNumber', u."phoneNumber", 'title', m.title) as "additionalFields"`;

const USER = `
  u.id, u.email, u."emailVerified", u.name, u.image,
  coalesce(u."isAnonymous", false) as "isAnonymous", coalesce(nullif(u.role, ''), 'user') as role,
  coalesce(u.banned, false) as banned, u."banReason", u."banExpires",
  m."organizationId", m.role as "orgRole", m."managerId", m."departmentId"
  ${process.env.RESPONDER_ADDITIONAL_FIELDS ? ADDITIONAL : ""}`;

const WITH_MEMBERSHIP = `
  select ${USER} from users u
  left join lateral (
    select * from members m where m."userId" = u.id order by m."createdAt", m.id limit 1
  ) m on true`;

export const GET = `${WITH_MEMBERSHIP} where u.id = $1`;
export const BY_EMAIL =
  `${WITH_MEMBERSHIP} where u.email = lower($1) order by u."createdAt", u.id limit 1`;
export const GET_MANY = `${WITH_MEMBERSHIP} where u.id = any($1::text[])`;

// One more than the page, to know whether there is another.
export const ORG_LIST = `
  select ${USER}, m.id as "memberId", m."createdAt"::text as "memberSince"
  from (
    select * from members where "organizationId" = $1 order by "createdAt", id limit $2::int + 1
  ) m
  join users u on u.id = m."userId"
  order by m."createdAt", m.id`;

// One row without an organization, of a user without memberships; none where there is no user.
export const MEMBERSHIPS = `
  select m."organizationId", o.name as "organizationName", o.slug as "organizationSlug",
    m.role as "orgRole", m."managerId", m."departmentId", m."createdAt", m.id as "memberId"
  from users u
  left join lateral (
    select * from members where "userId" = u.id order by "createdAt", id limit $2::int + 1
  ) m on true
  left join organizations o on o.id = m."organizationId"
  where u.id = $1
  order by m."createdAt", m.id`;

export function memberships(id, limit, rows) {
  if (rows.length === 0) return undefined;
  const found = rows.filter((row) => row.organizationId !== null);
  let nextCursor = null;
  if (found.length > limit) {
    found.length = limit;
    const { createdAt, memberId } = found[limit - 1];
    nextCursor = Buffer.from(JSON.stringify([id, createdAt, memberId])).toString("base64url");
  }
  return { memberships: found.map(({ memberId, ...membership }) => membership), nextCursor };
}

export function batch(ids, rows) {
  const found = new Map(rows.map((row) => [row.id, row]));
  const users = [];
  const missing = [];
  for (const id of new Set(ids)) {
    const row = found.get(id);
    if (row) users.push(row);
    else missing.push(id);
  }
  return { users, missing };
}

export function page(organizationId, limit, rows) {
  let nextCursor = null;
  if (rows.length > limit) {
    rows.length = limit;
    const { memberSince, memberId } = rows[limit - 1];
    const place = JSON.stringify([organizationId, memberSince, memberId]);
    nextCursor = Buffer.from(place).toString("base64url");
  }
  const users = rows.map(({ memberSince, memberId, ...user }) => user);
  return { users, nextCursor };
}

// Answers on a subject with what a function returns for a request.
export function listen(connection, name, lookups) {
  for (const [lookup, answer] of Object.entries(lookups)) {
    connection.subscribe(`${name}.${lookup}`, {
      queue: name,
      callback: async (error, message) => {
        if (error) throw error;
        try {
          message.respond(JSON.stringify((await answer(message.json())) ?? { code: "not_found" }));
        } catch (failure) {
          console.error(failure);
          message.respond(JSON.stringify({ code: "internal" }));
        }
      },
    });
  }
}
