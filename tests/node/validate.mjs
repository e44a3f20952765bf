// Reads an AsyncAPI document with the parser of those who write the specification, and prints what it finds wrong.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
const said = (each) => ({ severity: each.severity, message: each.message, path: each.path.join("/") });
console.log(
  JSON.stringify({
    isDocument: document !== undefined,
    diagnostics: diagnostics.map(said),
    operations: document?.operations().all().map((each) => each.id()) ?? [],
  }),
);
