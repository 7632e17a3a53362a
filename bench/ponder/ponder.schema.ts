import { index, onchainTable, primaryKey } from "ponder";

export const authorization = onchainTable("authorization", (t) => ({
  id: t.hex().primaryKey(),
  size: t.bigint().notNull(),
  root: t.hex().notNull(),
  due: t.bigint().notNull(),
  paid: t.bigint().notNull(),
}));

export const settlement = onchainTable(
  "settlement",
  (t) => ({
    block: t.bigint().notNull(),
    logIndex: t.integer().notNull(),
    transaction: t.hex().notNull(),
    authorization: t.hex().notNull(),
    size: t.bigint().notNull(),
    units0: t.bigint().notNull(),
    units1: t.bigint().notNull(),
    units2: t.bigint().notNull(),
    units3: t.bigint().notNull(),
    credits: t.bigint().notNull(),
    asOf: t.bigint().notNull(),
    root: t.hex().notNull(),
    due: t.bigint().notNull(),
    paid: t.bigint().notNull(),
    providerSigner: t.hex().notNull(),
    consumerSigner: t.hex().notNull(),
    basis: t.integer().notNull(),
  }),
  (table) => ({
    key: primaryKey({ columns: [table.block, table.logIndex] }),
    byAuthorization: index().on(table.authorization, table.block, table.logIndex),
  }),
);
