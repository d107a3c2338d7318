import { betterAuth } from "better-auth";
import { drizzleAdapter } from "better-auth/adapters/drizzle";
import { admin, anonymous, jwt, organization } from "better-auth/plugins";

// For `auth generate`, which is not a dependency here: tests/schemas/drizzle.sql says how.
export const auth = betterAuth({
  baseURL: "http://127.0.0.1:3000",
  secret: "only the tables are wanted, nothing is ever signed",
  database: drizzleAdapter({}, { provider: "pg" }),
  emailAndPassword: { enabled: true },
  plugins: [admin(), anonymous(), organization({ schema: { member: { additionalFields: {
    managerId: { type: "string", required: false },
    departmentId: { type: "string", required: false } } } } }), jwt()],
});
