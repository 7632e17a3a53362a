import { ponder } from "ponder:registry";
import { authorization, settlement } from "ponder:schema";

// `Opened` has no handler: the measured blocks have none, and while an event with a handler has not come a hundred times,
// Ponder reads every column of every transaction (with PGlite, until that hangs).
ponder.on("UsageLedger:Settled", async ({ event, context }) => {
  const { authorizationId, head, due, paid, providerSigner, consumerSigner, basis } = event.args;
  const [units0, units1, units2, units3] = head.units;
  await context.db.insert(settlement).values({
    block: event.block.number,
    logIndex: event.log.logIndex,
    transaction: event.transaction.hash,
    authorization: authorizationId,
    size: head.size,
    units0,
    units1,
    units2,
    units3,
    credits: head.credits,
    asOf: BigInt(head.asOf),
    root: head.root,
    due,
    paid,
    providerSigner,
    consumerSigner,
    basis,
  });
  const now = { size: head.size, root: head.root, due, paid };
  await context.db
    .insert(authorization)
    .values({ id: authorizationId, ...now })
    .onConflictDoUpdate(now);
});
