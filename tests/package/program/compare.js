/** Two ranks in workers, and one that has the whole batch: what all of them came to. */

import { runRanks } from "@syncbn/syncbn";
import { spawnWorkers } from "@syncbn/syncbn/workers";
import { PARTS, train } from "./train.js";

/** Trains all of them. */
export async function compare(start) {
  const ranks = await spawnWorkers(start, 2, { parameter: PARTS });
  const alone = typeof window === "undefined"
    ? (await runRanks(1, (group) => train(group, PARTS.flat())))[0].numbers
    : null; // A page's own thread may not wait for others.
  return { ranks, alone };
}
