// A Better Auth application of any version, with the adapter and the options of one variant.

import { betterAuth } from "better-auth";
import { admin, anonymous, jwt, organization } from "better-auth/plugins";

const { adapter, plural, ids, plugins } = JSON.parse(process.env.VARIANT);

const names = (model) => (plural && adapter === "kysely" ? { modelName: model } : undefined);
const text = { type: "string", required: false };
const generateId = {
  serial: { useNumberId: true, generateId: "serial" },
  uuid: { generateId: "uuid" },
};

async function database() {
  const options = { provider: "pg", usePlural: plural };
  if (adapter === "drizzle") {
    const { drizzleAdapter } = await import("better-auth/adapters/drizzle");
    return drizzleAdapter({}, options);
  }
  if (adapter === "prisma") {
    const { prismaAdapter } = await import("better-auth/adapters/prisma");
    return prismaAdapter({}, { ...options, provider: "postgresql" });
  }
  const { default: pg } = await import("pg");
  return new pg.Pool({ connectionString: process.env.DATABASE_URL });
}

export const auth = betterAuth({
  baseURL: "http://127.0.0.1:3000",
  secret: "only the tables are wanted, nothing is ever signed",
  database: await database(),
  telemetry: { enabled: false },
  emailAndPassword: { enabled: true },
  advanced: { database: generateId[ids] },
  user: names("users"),
  session: names("sessions"),
  account: names("accounts"),
  verification: names("verifications"),
  plugins: plugins === false ? [] : [
    admin(),
    anonymous(),
    organization({
      schema: {
        organization: names("organizations"),
        member: { ...names("members"), additionalFields: { managerId: text, departmentId: text } },
        invitation: names("invitations"),
      },
    }),
    jwt({ schema: { jwks: names("jwks") } }),
  ],
});
