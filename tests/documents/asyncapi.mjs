// Reads an AsyncAPI document from standard input; prints what is wrong with it, an object a line.
import { text } from "node:stream/consumers";
import { Parser } from "@asyncapi/parser";

const { diagnostics } = await new Parser().parse(await text(process.stdin));
for (const { severity, message, path } of diagnostics) {
  console.log(JSON.stringify({ severity, message, path: path.join(".") }));
}
