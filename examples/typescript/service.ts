// Who answers, what, and how often: npm install && node service.ts
import { Svcm } from "@nats-io/services";
import { connect } from "@nats-io/transport-node";

const nc = await connect({ servers: process.env.NATS_URL });
const services = new Svcm(nc).client();

for await (const { name, version, id } of await services.ping("users")) {
  console.log(name, version, id);
}
for await (const { description, endpoints } of await services.info("users")) {
  console.log(description);
  for (const { name, subject } of endpoints) console.log("-", name, subject);
}
for await (const { endpoints } of await services.stats("users")) {
  for (const { name, num_requests, num_errors } of endpoints ?? []) {
    console.log("-", name, num_requests, "requests,", num_errors, "errors");
  }
}
await nc.close();
