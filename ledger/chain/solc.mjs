// The npm compiler behind the two switches py-solc-x uses, so that one solc serves Hardhat and Python.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const solc = createRequire(`${process.cwd()}/`)("solc");

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version().replace("Emscripten.clang", "Linux.g++")}`);
} else {
  console.log(solc.compile(readFileSync(0, "utf8")));
}
