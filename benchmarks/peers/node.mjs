// Node.js with nats.js and pg: a pool, and named (that is, prepared) statements.

import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { BY_EMAIL, GET, GET_MANY, MEMBERSHIPS, ORG_LIST, batch, listen, memberships, page } from "./lookups.mjs";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const query = async (name, text, ...values) => (await pool.query({ name, text, values })).rows;

listen(await connect({ servers: process.env.NATS_URL }), "node", {
  get: async ({ id }) => (await query("get", GET, id))[0],
  by_email: async ({ email }) => (await query("by_email", BY_EMAIL, email))[0],
  get_many: async ({ ids }) => batch(ids, await query("get_many", GET_MANY, ids)),
  org_list: async ({ organizationId, limit = 100 }) =>
    page(organizationId, limit, await query("org_list", ORG_LIST, organizationId, limit)),
  memberships: async ({ id, limit = 100 }) =>
    memberships(id, limit, await query("memberships", MEMBERSHIPS, id, limit)),
});
