// Publishes messages as an AsyncAPI document says that they are to be published, and knows nothing else of the app.
// Arguments: document, URL of the broker, id of the operation, and lines of {"type", "body"} on standard input.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import amqp from "amqplib";

const [file, url, operationId] = process.argv.slice(2);
const document = JSON.parse(readFileSync(file, "utf8"));

const at = (pointer, root) =>
  pointer.split("/").filter(Boolean).reduce((node, name) => node[name.replaceAll("~1", "/").replaceAll("~0", "~")], root);
const follow = (node) => (node.$ref ? follow(at(node.$ref.slice(1), document)) : node);
const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

const operation = document.operations[operationId];
const channel = follow(operation.channel);
const binding = channel.bindings.amqp;
const exchange = binding.is === "queue" ? "" : binding.exchange.name;
const messages = Object.fromEntries(operation.messages.map(follow).map((message) => [message.name, message]));

// What a property has to be: one value, what the body has elsewhere, or anything that is not there yet.
const property = (name, schema, message, body) => {
  if (schema.const !== undefined) return schema.const;
  if (name === "correlation_id") return String(at(message.correlationId.location.replace("$message.payload#", ""), body));
  if (schema["x-unique"]) return randomUUID();
  throw new Error(`the document does not say what ${name} is`);
};

const connection = await amqp.connect(url);
const confirming = await connection.createConfirmChannel();
const returned = [];
confirming.on("return", (message) => returned.push(message.properties.type));

for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const { type, body } = JSON.parse(line);
  const message = messages[type];
  const { required, properties } = message["x-amqp-properties"];
  const values = required.map((name) => [camel(name), property(name, properties[name], message, body)]);
  confirming.publish(exchange, channel.address, Buffer.from(JSON.stringify(body)), {
    ...Object.fromEntries(values),
    contentType: message.contentType,
    deliveryMode: operation.bindings.amqp.deliveryMode,
    mandatory: operation.bindings.amqp.mandatory,
  });
}
await confirming.waitForConfirms();
await connection.close();
console.log(JSON.stringify({ returned }));
