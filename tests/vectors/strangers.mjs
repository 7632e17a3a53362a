// Signs typed data as a stranger would: with viem alone, knowing nothing but the JSON.
//
//     node tests/vectors/strangers.mjs [--check] [file]
//
// The file (strangers.json here, unless another is named) holds a private key and messages, each with its typed data.
// Their digests and signatures are written into it; with --check they are compared with what stands there.
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { hashTypedData } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const { values, positionals } = parseArgs({ options: { check: { type: "boolean" } }, allowPositionals: true });
const file = positionals[0] ?? new URL("strangers.json", import.meta.url);
const before = readFileSync(file, "utf8");

const data = JSON.parse(before);
const account = privateKeyToAccount(data.key);
data.address = account.address.toLowerCase();
for (const message of data.messages) {
  message.digest = hashTypedData(message.typedData);
  message.signature = await account.signTypedData(message.typedData);
}

// The typed data went through JavaScript's numbers and back: were one rounded, the text would differ too.
const after = JSON.stringify(data, null, 1) + "\n";
if (!values.check) {
  writeFileSync(file, after);
} else if (after !== before) {
  const lines = before.split("\n");
  const first = after.split("\n").findIndex((line, number) => line !== lines[number]);
  console.error(`line ${first + 1} is not what viem makes: ${after.split("\n")[first]}`);
  process.exitCode = 1;
}
