// Bun with nats.js and Bun.sql, which prepares and pipelines by itself.

import { connect } from "@nats-io/transport-node";
import { SQL } from "bun";
import { BY_EMAIL, GET, GET_MANY, MEMBERSHIPS, ORG_LIST, batch, listen, memberships, page } from "./lookups.mjs";

const sql = new SQL(process.env.DATABASE_URL);
// On two cores more queries in each pipeline beat more connections, where answers are small.
const few = new SQL(process.env.DATABASE_URL, { max: 4 });

listen(await connect({ servers: process.env.NATS_URL }), "bun", {
  get: async ({ id }) => (await few.unsafe(GET, [id]))[0],
  by_email: async ({ email }) => (await few.unsafe(BY_EMAIL, [email]))[0],
  get_many: async ({ ids }) => batch(ids, await sql.unsafe(GET_MANY, [sql.array(ids, "TEXT")])),
  org_list: async ({ organizationId, limit = 100 }) =>
    page(organizationId, limit, await sql.unsafe(ORG_LIST, [organizationId, limit])),
  memberships: async ({ id, limit = 100 }) =>
    memberships(id, limit, await few.unsafe(MEMBERSHIPS, [id, limit])),
});
