/** Collectives whose every result is checked: what ranks do while their process is stopped. */

import { type ProcessGroup, sum } from "../../mod.ts";

/** What came of it. */
export interface Count {
  readonly results: number;
  readonly wrong: number;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Sums and splits, of which one rank comes late to every third. */
export async function collect(group: ProcessGroup, ms: number): Promise<Count> {
  const end = performance.now() + ms;
  let [results, wrong] = [0, 0];
  const check = (is: number, wanted: number) => {
    results++;
    if (is !== wanted) wrong++;
  };
  const { rank, worldSize } = group;
  const splits = "abort" in group ? 8 : Infinity; // Communicators of MPI are there for good.
  for (let i = 0;; i++) {
    const goOn = rank === 0 && performance.now() < end ? 1 : 0;
    const [more] = await group.allReduce(Float64Array.of(goOn), sum);
    if (more === 0) return { results, wrong };
    const part = i < splits ? await group.split(rank % 2) : group;
    const base = 1000 * (part === group ? 0 : rank % 2) + i % 7 + 1;
    for (let k = 0; k < 3; k++) {
      if (i % 3 === 0 && part.rank === 1) await pause(60);
      const [total] = await part.allReduce(Float64Array.of(base), sum);
      check(total, part.worldSize * base);
    }
    const long = await group.allReduce(new Float64Array(300).fill(rank + i), sum);
    check(long[299], worldSize * i + worldSize * (worldSize - 1) / 2);
  }
}
