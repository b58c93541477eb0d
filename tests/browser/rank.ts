/** A rank in a browser's worker. */

import { serveRank } from "../../lib/groups/workers.ts";
import { CollectiveError, sum } from "../../mod.ts";

/** What a rank tells of its collectives: sums in the group and in a sub-group, and what came of a rank that is late. */
export interface Seen {
  readonly total: number;
  readonly half: number;
  readonly late: string;
}

serveRank(async (group, timeoutMs: number): Promise<Seen> => {
  const own = Float64Array.of(group.rank + 1);
  const part = await group.split(group.rank % 2);
  const [total] = await group.allReduce(own, sum);
  const [half] = await part.allReduce(own, sum);
  if (group.rank === 1) await new Promise((resolve) => setTimeout(resolve, 2 * timeoutMs));
  try {
    await group.allReduce(own, sum, { label: "late" });
    return { total, half, late: "nothing" };
  } catch (error) {
    if (!(error instanceof CollectiveError)) throw error;
    return { total, half, late: `${error.code} ${error.ranks}` };
  }
});
