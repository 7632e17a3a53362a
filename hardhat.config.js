import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "hardhat/config";

// The same compiler and settings as ledger/chain/compile.py, so that what is tested is what is deployed.
// solc comes from npm as WebAssembly: nothing is downloaded.
const compiler = { version: "0.8.37", path: fileURLToPath(import.meta.resolve("solc/soljson.js")) };

// Tests that deploy the compiled contracts (World.deploy) are built the quick way: they are ten times the contracts' size.
// Those that call libraries directly are built as the contracts are.
const quick = { ...compiler, settings: { evmVersion: "cancun", optimizer: { enabled: false } } };
const direct = ["Libraries.t.sol", "Vectors.t.sol"];
const overrides = Object.fromEntries(
  readdirSync("contracts/test")
    .filter((name) => name.endsWith(".t.sol") && !direct.includes(name))
    .map((name) => [`contracts/test/${name}`, quick]),
);

export default defineConfig({
  solidity: {
    compilers: [
      {
        ...compiler,
        settings: {
          viaIR: true,
          evmVersion: "cancun",
          optimizer: { enabled: true, runs: 200 },
          metadata: { bytecodeHash: "none" },
        },
      },
    ],
    overrides,
  },
  paths: {
    sources: "contracts",
    tests: { solidity: "contracts/test" },
    cache: "build/hardhat/cache",
    artifacts: "build/hardhat/artifacts",
  },
  coverage: { skipFiles: ["contracts/mocks/**", "contracts/test/**", "contracts/interfaces/**"] },
  test: {
    solidity: {
      fuzz: { runs: Number(process.env.FUZZ_RUNS ?? 256) },
      // Every action of the handler must succeed: what the ledger refuses, the handler does not ask for.
      invariant: { runs: Number(process.env.INVARIANT_RUNS ?? 256), depth: 100, failOnRevert: true },
      fsPermissions: { readDirectory: ["tests/vectors", "build/hardhat/artifacts"] },
    },
  },
});
