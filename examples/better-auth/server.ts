// Better Auth on Bun: bun server.ts
import { signJWT } from "better-auth/crypto";
import { getMigrations } from "better-auth/db/migration";
import { auth, pool } from "./auth.ts";

const DAY = 24 * 60 * 60; // seconds

// Many applications sign tokens of their own with Better Auth's secret: RESPONDER_JWT_SECRET.
async function ownToken(request: Request): Promise<Response> {
  const session = await auth.api.getSession({ headers: request.headers });
  if (!session) return Response.json({ message: "sign in first" }, { status: 401 });
  const { id: userId, email, role } = session.user;
  const { rows: [member] } = await pool.query(
    `select "organizationId", role "orgRole" from member where "userId" = $1 order by "createdAt"`,
    [userId],
  );
  const secret = process.env.BETTER_AUTH_SECRET!;
  return Response.json({ token: await signJWT({ userId, email, role, ...member }, secret, DAY) });
}

await (await getMigrations(auth.options)).runMigrations();
const server = Bun.serve({
  hostname: process.env.HOST ?? "127.0.0.1",
  port: process.env.PORT ?? 3000,
  routes: { "/api/auth/*": (request) => auth.handler(request), "/own-token": ownToken },
});
console.log(`listening on ${server.url}`);
