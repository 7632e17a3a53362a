import { createConfig } from "ponder";
import chain from "./chain.json"; // written by bench/ponder.py

export default createConfig({
  database: chain.database as any,
  chains: { anvil: { id: chain.id, rpc: chain.url } },
  contracts: {
    UsageLedger: { chain: "anvil", abi: chain.abi as any, address: chain.address as any, startBlock: chain.first },
  },
});
