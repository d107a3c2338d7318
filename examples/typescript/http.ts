// Ask for users over HTTP, typed by OpenAPI: npm install && npm run types && node http.ts
import createClient from "openapi-fetch";
import type { paths } from "./users-api.d.ts";

const users = createClient<paths>({
  baseUrl: process.env.HTTP_URL,
  headers: { Authorization: `Bearer ${process.env.OWNER}` },
});
const me = await users.GET("/api/v1/me");
console.log(me.data?.user?.name, me.data?.user?.email, me.data?.user?.orgRole);

const path = { organizationId: "9RBGxYHOUXWoEsPAMPIvebNnIeXT3iud" }; // of the demo
let cursor: string | null | undefined;
do {
  const query = { role: ["owner", "admin"], cursor: cursor ?? undefined };
  const page = await users.GET("/api/v1/organizations/{organizationId}/users", {
    params: { path, query },
  });
  for (const { name, orgRole } of page.data?.users ?? []) console.log("-", name, orgRole);
  cursor = page.data?.nextCursor;
} while (cursor);

const params = { path: { id: "no such id" } };
const { error } = await users.GET("/api/v1/users/{id}", { params });
console.log(error?.code, error?.detail);
