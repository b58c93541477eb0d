/** A rank that reduces long arrays, by a function that may be cut and by one that may not. */

import { combineMoments, type ProcessGroup, sum } from "../../mod.ts";

/** Returns the last value of the sum, and the count and the last mean of merged moments. */
export async function reduceLong(
  { rank, allReduce }: ProcessGroup,
  length: number,
): Promise<readonly number[]> {
  const own = new Float64Array(length).fill(rank + 1);
  const total = (await allReduce(own, sum))[length - 1];
  const [count, mean] = await allReduce(own, combineMoments);
  return [total, count, mean];
}
