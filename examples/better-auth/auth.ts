// The application's Better Auth: its plugins, and fields of its own for a membership.
import { betterAuth } from "better-auth";
import { admin, anonymous, jwt, organization } from "better-auth/plugins";
import pg from "pg";

const text = { type: "string", required: false } as const;

export const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });

// BETTER_AUTH_URL and BETTER_AUTH_SECRET are read from the environment.
export const auth = betterAuth({
  database: pool,
  emailAndPassword: { enabled: true },
  plugins: [
    admin(),
    anonymous(),
    organization({
      schema: { member: { additionalFields: { managerId: text, departmentId: text } } },
    }),
    jwt({
      jwt: {
        definePayload: ({ user, session }) => ({
          ...user,
          activeOrganizationId: session.activeOrganizationId,
        }),
      },
    }),
  ],
});
