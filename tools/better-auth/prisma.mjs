// Print the SQL that Prisma makes of a schema.prisma. Its schema engine needs no database for this,
// but asks for the version of one, so it gets answers that are made up.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as binding from "@prisma/schema-engine-wasm/schema_engine_bg";

const file = new URL("schema_engine_bg.wasm", import.meta.resolve("@prisma/schema-engine-wasm"));
const { instance } = await WebAssembly.instantiate(readFileSync(fileURLToPath(file)), {
  "./schema_engine_bg.js": binding,
});
binding.__wbg_set_wasm(instance.exports);
instance.exports.__wbindgen_start();

const done = async () => ({ ok: true, value: 0 });
const columnTypes = [5, 7, 0]; // a boolean, a text and an integer
const answer = {
  columnTypes,
  columnNames: ["exists", "version", "number"],
  rows: [[true, "PostgreSQL 18.0", 180000]],
};
const connection = {
  provider: "postgres",
  adapterName: "none",
  errorRegistry: { consumeError: () => undefined },
  getConnectionInfo: () => ({
    ok: true,
    value: { schemaName: "public", supportsRelationJoins: true },
  }),
  queryRaw: async () => ({ ok: true, value: answer }),
  executeRaw: done,
  executeScript: done,
  dispose: done,
};
const connect = async () => ({ ok: true, value: connection });
const factory = { ...connection, connect, connectToShadowDb: connect };
const engine = await binding.SchemaEngine.new({}, () => {}, factory);
const { stdout } = await engine.diff({
  from: { tag: "empty" },
  to: {
    tag: "schemaDatamodel",
    files: [{ path: "schema.prisma", content: readFileSync("schema.prisma", "utf8") }],
  },
  script: true,
  exitCode: null,
  shadowDatabaseUrl: null,
  filters: { externalTables: [], externalEnums: [] },
});
console.log(stdout);
