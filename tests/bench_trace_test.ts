/** Where a synchronised step's time goes, from what its ranks noted: by hand, with clocks that differ. */

import assert from "node:assert/strict";
import { runRanks, sum } from "../mod.ts";
import {
  aligned,
  drawSteps,
  gatherSteps,
  noting,
  sharesOf,
  type Step,
  stepOf,
} from "../bench/trace.ts";

// Rank 0 computes 4, waits 2, is held up 1, computes 2, is held up 1. Rank 1 the same second half, 1000 ahead.
const STEPS: readonly Step[] = [
  { began: 0, ended: 10, meetings: [[4, 7], [9, 10]] },
  { began: 1000, ended: 1010, meetings: [[1006, 1007], [1008, 1010]] },
];

Deno.test("trace: clocks are set by who cannot have left before the other came", () => {
  const [first, second] = aligned(STEPS);
  assert.equal(first, STEPS[0]);
  assert.deepEqual(second, { began: 0, ended: 10, meetings: [[6, 7], [8, 10]] });
});

Deno.test("trace: a step is computing, waiting for the last to come, and what follows that", () => {
  assert.deepEqual(sharesOf(aligned(STEPS)), [
    { computing: 6, waiting: 2, after: 2 },
    { computing: 7, waiting: 1, after: 2 },
  ]);
});

Deno.test("trace: ranks note their collectives, and all get the steps of all", async () => {
  const all = await runRanks(2, async (group) => {
    const meetings: [number, number][] = [];
    const noted = noting(group, meetings);
    const began = performance.now();
    await noted.allReduce(Promise.resolve(Float64Array.of(1)), sum);
    await noted.allReduce(Float64Array.of(1), sum);
    return await gatherSteps(group, { began, ended: performance.now(), meetings });
  });
  for (const steps of all) {
    assert.deepEqual(steps.map(({ meetings }) => meetings.length), [2, 2]);
    for (const { began, ended, meetings } of steps) {
      const times = [began, ...meetings.flat(), ended];
      assert.deepEqual(times, times.toSorted((a, b) => a - b));
    }
  }
});

Deno.test("trace: a drawing has a lane per rank", () => {
  const svg = drawSteps({ "C, MPICH": [stepOf([0, 3, 1, 2]), stepOf([0, 3, 2, 2])] });
  for (const lane of ["C, MPICH, rank 0", "C, MPICH, rank 1"]) assert(svg.includes(lane));
});
