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

const operation = document.operations[operationId];
const channel = follow(operation.channel);
const exchange = channel.bindings.amqp.exchange.name;
const messages = Object.fromEntries(operation.messages.map(follow).map((message) => [message.name, message]));

const connection = await amqp.connect(url);
const confirming = await connection.createConfirmChannel();
const returned = [];
confirming.on("return", (message) => returned.push(message.properties.messageId));

for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const { type, body } = JSON.parse(line);
  const message = messages[type];
  const key = at(message.correlationId.location.replace("$message.payload#", ""), body);
  confirming.publish(exchange, "", Buffer.from(JSON.stringify(body)), {
    type: message.bindings.amqp.messageType,
    messageId: randomUUID(),
    correlationId: String(key),
    contentType: message.contentType,
    deliveryMode: operation.bindings.amqp.deliveryMode,
    mandatory: operation.bindings.amqp.mandatory,
  });
}
await confirming.waitForConfirms();
await connection.close();
console.log(JSON.stringify({ returned }));
