import { fileURLToPath } from "node:url";
import { defineConfig } from "hardhat/config";

// The same compiler and settings as ledger/chain/compile.py, so that what is tested is what is deployed.
// solc comes from npm as WebAssembly: nothing is downloaded.
export default defineConfig({
  solidity: {
    version: "0.8.37",
    path: fileURLToPath(import.meta.resolve("solc/soljson.js")),
    settings: {
      viaIR: true,
      evmVersion: "cancun",
      optimizer: { enabled: true, runs: 200 },
      metadata: { bytecodeHash: "none" },
    },
  },
  paths: {
    sources: "contracts",
    tests: { solidity: "contracts/test" },
    cache: "build/hardhat/cache",
    artifacts: "build/hardhat/artifacts",
  },
  test: {
    solidity: {
      fuzz: { runs: Number(process.env.FUZZ_RUNS ?? 256) },
      // Every action of the handler must succeed: what the ledger refuses, the handler does not ask for.
      invariant: { runs: Number(process.env.INVARIANT_RUNS ?? 256), depth: 100, failOnRevert: true },
      fsPermissions: { readDirectory: ["tests/vectors"] },
    },
  },
});
