// Better Auth under Bun as its documentation has it, with the plugins that our tables are of.

import { betterAuth } from "better-auth";
import { admin, anonymous, bearer, jwt, organization } from "better-auth/plugins";
import pg from "pg";

const text = { type: "string", required: false };
const origin = `http://127.0.0.1:${process.env.PORT}`;

const auth = betterAuth({
  baseURL: origin,
  secret: "a secret of the benchmark, and of nothing else",
  database: new pg.Pool({ connectionString: process.env.DATABASE_URL }),
  telemetry: { enabled: false },
  rateLimit: { enabled: false },
  emailAndPassword: { enabled: true },
  user: { modelName: "users" },
  session: { modelName: "sessions" },
  account: { modelName: "accounts" },
  verification: { modelName: "verifications" },
  plugins: [
    admin(),
    anonymous(),
    bearer(),
    organization({
      schema: {
        organization: { modelName: "organizations" },
        member: { modelName: "members", additionalFields: { managerId: text, departmentId: text } },
        invitation: { modelName: "invitations" },
      },
    }),
    jwt(),
  ],
});

Bun.serve({ hostname: "127.0.0.1", port: process.env.PORT, fetch: auth.handler });
