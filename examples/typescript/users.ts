// Ask for users over NATS: npm install && npm run types && node users.ts
import { connect, headers } from "@nats-io/transport-node";
import type { components } from "./users-api.d.ts";

type Users = components["schemas"];
const LUMEN = "9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud"; // two ids of the demo
const ZOE = "KbO8WbOTItGbdi0KY5YfJyfimmurNJra";
const timeout = 2000; // milliseconds
const nc = await connect({ servers: process.env.NATS_URL });

// Asks on behalf of the user of a token or, without one, as this program itself.
async function ask<Reply>(subject: string, request: object, token?: string): Promise<Reply> {
  const sent = headers();
  sent.set("Responder-Timeout-Ms", `${timeout}`);
  if (token) sent.set("Authorization", `Bearer ${token}`);
  const answer = await nc.request(subject, JSON.stringify(request), { timeout, headers: sent });
  if (answer.headers?.has("Nats-Service-Error-Code")) {
    const { code, message } = answer.json<{ code: string; message: string }>();
    throw Object.assign(new Error(message), { code });
  }
  return answer.json<Reply>();
}

const zoe = await ask<Users["User"]>("users.get", { id: ZOE });
console.log(zoe.name, zoe.email, zoe.orgRole);
let cursor: string | null | undefined;
do {
  const request = { organizationId: LUMEN, roles: ["owner", "admin"], cursor };
  const page = await ask<Users["UserPage"]>("users.org_list", request);
  for (const { name, orgRole } of page.users) console.log("-", name, orgRole);
  cursor = page.nextCursor;
} while (cursor);
await ask("users.get", { id: "no such id" }, process.env.VIEWER)
  .catch(({ code, message }) => console.log(code, message));
await nc.close();
