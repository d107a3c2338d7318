// Sample people, who sign up as all others do: bun seed.ts
import { auth, pool } from "./auth.ts";

const PASSWORD = "correct horse battery staple";

async function signUp(name: string): Promise<string> {
  const email = `${name.toLowerCase()}@example.com`;
  const { user } = await auth.api.signUpEmail({ body: { name, email, password: PASSWORD } });
  return user.id;
}

const { rows: [seeded] } = await pool.query("select 1 from organization where slug = 'engines'");
if (!seeded) {
  const ada = await signUp("Ada");
  const organization = await auth.api.createOrganization({
    body: { name: "Analytical Engines", slug: "engines", userId: ada },
  });
  for (const [name, role, departmentId] of [
    ["Grace", "admin", "compilers"],
    ["Alan", "member", "machines"],
  ] as const) {
    const userId = await signUp(name);
    await auth.api.addMember({
      body: { organizationId: organization.id, userId, role, managerId: ada, departmentId },
    });
  }
  await signUp("Eve"); // in no organization
}
await pool.end();
console.log("people have signed up");
