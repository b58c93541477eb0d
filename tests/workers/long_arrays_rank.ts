/** A rank that reduces long arrays, by functions that may be cut and by such that may not. */

import { type Combine, combineMoments, type ProcessGroup, sum } from "../../mod.ts";

/** Whose function. */
export type Reduction = "sum" | "largest" | "moments" | "turned";

const largest: Combine = Object.assign(
  (a: Float64Array, b: Float64Array) => a.map((value, i) => Math.max(value, b[i])),
  { elementwise: true } as const,
);

/** An element of the total depends on another of what came before. */
const turned: Combine = function turned(a, b) {
  const total = new Float64Array(b);
  for (let i = 0; i < total.length; i++) total[i] += 2 * a[total.length - 1 - i];
  return total;
};

const COMBINES: Record<Reduction, Combine> = { sum, largest, moments: combineMoments, turned };

/** Returns the first, the second, and the last value of the total. */
export async function reduceLong(
  { rank, allReduce }: ProcessGroup,
  { length, by }: { readonly length: number; readonly by: Reduction },
): Promise<readonly number[]> {
  const own = new Float64Array(length).fill(rank + 1);
  const total = await allReduce(own, COMBINES[by]);
  return [total[0], total[1], total[length - 1]];
}
