// Print the SQL with which Better Auth itself creates its tables in an empty PostgreSQL database.
//
//   DATABASE_URL=postgres://… node generate.mjs plural|default
//
// The database is read, to learn that it is empty, and never written.

import { readFileSync } from "node:fs";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { admin, anonymous, jwt, organization } from "better-auth/plugins";
import pg from "pg";

const plural = {
  user: { modelName: "users" },
  session: { modelName: "sessions" },
  account: { modelName: "accounts" },
  verification: { modelName: "verifications" },
  organization: { modelName: "organizations" },
  member: { modelName: "members" },
  invitation: { modelName: "invitations" },
  jwks: { modelName: "jwks" },
};

const variant = process.argv[2];
if (!["plural", "default"].includes(variant)) throw new Error("which variant: plural or default?");
const names = variant === "plural" ? plural : {};

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const auth = betterAuth({
  baseURL: "http://127.0.0.1:3000",
  secret: "only the tables are wanted, nothing is ever signed",
  database: pool,
  telemetry: { enabled: false },
  emailAndPassword: { enabled: true },
  user: names.user,
  session: names.session,
  account: names.account,
  verification: names.verification,
  plugins: [
    admin(),
    anonymous(),
    organization({
      schema: {
        organization: names.organization,
        member: {
          ...names.member,
          additionalFields: {
            managerId: { type: "string", required: false },
            departmentId: { type: "string", required: false },
          },
        },
        invitation: names.invitation,
      },
    }),
    jwt({ schema: { jwks: names.jwks } }),
  ],
});

const { compileMigrations } = await getMigrations(auth.options);
const sql = await compileMigrations();
const { version } = JSON.parse(
  readFileSync(new URL("node_modules/better-auth/package.json", import.meta.url), "utf8"),
);
console.log(`-- What Better Auth ${version} creates, as it prints it: tools/better-auth/generate.py`);
console.log(`-- Plugins: admin, anonymous, organization, jwt. Names: ${variant}.`);
console.log();
console.log(sql.trim());
await pool.end();
