// Better Auth as a company runs it: the plugins admin, organization, anonymous, jwt and bearer, on
// PostgreSQL. One application signs with EdDSA. Others use the same tables, each with keys of its
// own: they sign with the other algorithms, or with keys that change every few seconds. One signs
// tokens of its own with Better Auth's secret, as Better Auth itself does with a link that verifies
// an email, and with a cookie. The program ends when its standard input does.

import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { signJWT } from "better-auth/crypto";
import { getMigrations } from "better-auth/db/migration";
import { fromNodeHeaders, toNodeHandler } from "better-auth/node";
import { admin, anonymous, bearer, jwt, organization } from "better-auth/plugins";
import { createAccessControl } from "better-auth/plugins/access";
import {
  adminAc, defaultStatements, memberAc, ownerAc,
} from "better-auth/plugins/organization/access";
import pg from "pg";

// The options of each application's key set, by its name. The first application is at /api/auth.
const APPLICATIONS = {
  EdDSA: { keyPairConfig: { alg: "EdDSA" } },
  ES256: { keyPairConfig: { alg: "ES256" } },
  ES512: { keyPairConfig: { alg: "ES512" } },
  RS256: { keyPairConfig: { alg: "RS256" } },
  PS256: { keyPairConfig: { alg: "PS256" } },
  rotating: { rotationInterval: 2, gracePeriod: 3 }, // seconds
  secret: { keyPairConfig: { alg: "EdDSA" } },
};
const DAY = 24 * 60 * 60; // seconds
const secret = process.env.BETTER_AUTH_SECRET;
const links = new Map(); // the token of the last email, by user
const text = { type: "string", required: false };
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const access = createAccessControl(defaultStatements);
const roles = Object.fromEntries(
  Object.entries({ owner: ownerAc, admin: adminAc, staff: memberAc, viewer: memberAc })
    .map(([name, role]) => [name, access.newRole(role.statements)]),
);

function application(origin, name, jwks) {
  return betterAuth({
    baseURL: origin,
    basePath: name === "EdDSA" ? "/api/auth" : `/${name}/api/auth`,
    secret,
    database: pool,
    telemetry: { enabled: false },
    emailAndPassword: { enabled: true },
    user: {
      modelName: "users",
      changeEmail: { enabled: true, updateEmailWithoutVerification: true },
    },
    session: {
      modelName: "sessions",
      cookieCache: { enabled: name === "secret", strategy: "jwt" },
    },
    emailVerification: {
      sendVerificationEmail: async ({ user, token }) => links.set(user.id, token),
    },
    account: { modelName: "accounts" },
    verification: { modelName: "verifications" },
    plugins: [
      admin(),
      anonymous(),
      bearer(),
      organization({
        ac: access,
        roles,
        schema: {
          organization: { modelName: "organizations" },
          member: {
            modelName: "members",
            additionalFields: { managerId: text, departmentId: text },
          },
          invitation: { modelName: "invitations" },
        },
      }),
      jwt({
        jwks,
        jwt: {
          definePayload: ({ user, session }) => ({
            ...user, activeOrganizationId: session.activeOrganizationId,
          }),
        },
        schema: { jwks: { modelName: `jwks_${name.toLowerCase()}` } },
      }),
    ],
  });
}

// What an application does that signs tokens of its own for the user of a session.
async function ownToken(auth, request) {
  const { user } = await auth.api.getSession({ headers: fromNodeHeaders(request.headers) });
  const { rows: [member] } = await pool.query(
    `select "organizationId", role from members where "userId" = $1 order by "createdAt"`,
    [user.id],
  );
  const { id: userId, email, name, role, emailVerified, isAnonymous } = user;
  const organization = { organizationId: member?.organizationId, orgRole: member?.role };
  const claims = {
    userId, email, name, role, emailVerified, isAnonymous, ...organization, isActive: true,
  };
  return { token: await signJWT(claims, secret, DAY), link: links.get(userId) };
}

const server = createServer((request, response) => handle(request, response));
let handle;
server.listen(0, "127.0.0.1", async () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  const handlers = [];
  for (const [name, jwks] of Object.entries(APPLICATIONS).toReversed()) {
    const auth = application(origin, name, jwks);
    const { runMigrations } = await getMigrations(auth.options);
    await runMigrations();
    handlers.push([`/${name}/`, auth]);
    // /add-member adds a member as a server does; Better Auth has no HTTP route for it.
    if (name === "EdDSA") handlers.push(["/", auth], ["/add-member", auth]);
  }
  handle = async (request, response) => {
    if (request.url === "/add-member") {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const auth = handlers.at(-1)[1];
      const member = await auth.api.addMember({ body: JSON.parse(Buffer.concat(chunks)) });
      response.setHeader("content-type", "application/json");
      return response.end(JSON.stringify(member));
    }
    if (request.url === "/own-token") {
      response.setHeader("content-type", "application/json");
      return response.end(JSON.stringify(await ownToken(handlers.at(-1)[1], request)));
    }
    const [, auth] = handlers.find(([prefix]) => request.url.startsWith(prefix));
    return toNodeHandler(auth)(request, response);
  };
  console.log(origin);
});
process.stdin.on("end", () => process.exit()).resume();
