import { count, sum } from "ponder";
import { db } from "ponder:api";
import { authorization, settlement } from "ponder:schema";
import { Hono } from "hono";

const app = new Hono();

app.get("/totals", async (c) => {
  const { size, units0, units1, credits, asOf, due, paid } = settlement;
  const [settled] = await db
    .select({
      settlements: count(),
      size: sum(size),
      units0: sum(units0),
      units1: sum(units1),
      credits: sum(credits),
      as_of: sum(asOf),
      due: sum(due),
      paid: sum(paid),
    })
    .from(settlement);
  const [now] = await db.select({ authorizations: count(), paid_now: sum(authorization.paid) }).from(authorization);
  return c.json({ ...settled, ...now });
});

export default app;
