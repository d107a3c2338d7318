// Print the SQL with which Better Auth itself brings the tables of DATABASE_URL up to date.
// The database is read, to learn what it has, and never written.

import { auth } from "./auth.mjs";

// Older versions export it from another module.
const { getMigrations } = await import("better-auth/db/migration")
  .catch(() => import("better-auth/db"));
const { compileMigrations } = await getMigrations(auth.options);
console.log(await compileMigrations());
await auth.options.database.end();
