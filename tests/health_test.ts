import assert from "node:assert/strict";
import {
  batchMoments,
  describe,
  healthSvg,
  healthTable,
  initBatchNorm,
  referenceDevice,
  runRanks,
  stateFromHost,
  stateToHost,
  tensor,
} from "../mod.ts";

const device = referenceDevice();
const host = await stateToHost(device, initBatchNorm(device, 3));
const state = stateFromHost(device, {
  ...host,
  weight: Float32Array.of(1, 1, NaN),
  runningMean: Float32Array.of(2, 0, 0),
  runningVar: Float32Array.of(4, 1e-6, 1),
  numBatchesTracked: 5,
});

Deno.test("describe() finds collapsed and non-finite channels, and drift from a batch", async () => {
  // Means 8, 0, 0; variances 16, 0, 0.
  const moments = batchMoments(tensor(device, [4, 0, 0, 12, 0, 0], [2, 3]), { device });
  const health = await describe(state, { device }, { moments });
  assert.deepEqual([health.batches, health.channels], [5, 3]);
  assert.deepEqual(health.collapsed, [1]);
  assert.deepEqual(health.nonFinite, [2]);
  assert.equal(health.differing, null);
  assert(Math.abs(health.meanDrift! - 3) < 1e-4, String(health.meanDrift));
  assert(Math.abs(health.varianceDrift! - 2) < 1e-4, String(health.varianceDrift));
  const other = await describe(state, { device }, { collapsedBelow: 1 });
  assert.deepEqual([other.collapsed, other.meanDrift], [[1, 2], null]);
});

Deno.test("describe() over a group finds the channels where ranks differ, NaN alike on all does not", async () => {
  const healths = await runRanks(3, (group) => {
    const mean = Float32Array.of(0, group.rank === 2 ? 1e-3 : 0, 0);
    const own = stateFromHost(device, {
      ...host,
      weight: Float32Array.of(1, 1, NaN),
      runningMean: mean,
    });
    return describe(own, { device, group });
  });
  for (const { differing } of healths) assert.deepEqual(differing, [1]);
});

Deno.test("describe() refuses what it cannot describe, on all ranks of a group", async () => {
  const untracked = initBatchNorm(device, 3, { trackRunningStats: false });
  await assert.rejects(describe(untracked, { device }), /must track running statistics/);
  await assert.rejects(
    runRanks(2, (group) => describe(group.rank === 1 ? untracked : state, { device, group })),
    /[Rr]ank 1.*must track running statistics/,
  );
  await assert.rejects(describe(state, { device }, { collapsedBelow: NaN }), RangeError);
});

Deno.test("healthTable() and healthSvg() show histories", async () => {
  const health = await describe(state, { device });
  const lines = healthTable({ stem: health, "head.0": health }).split("\n");
  assert.equal(lines.length, 3);
  assert.equal(new Set(lines.map(({ length }) => length)).size, 1);
  assert.match(lines[1], /^stem +5 +3 +1 +1 +0\.00000100 +- +- +-$/);
  const svg = healthSvg([health, { ...health, batches: 9, collapsed: [0, 1, 2] }]);
  assert.match(svg, /batch 5.*batch 9/);
  // One of three channels, then all.
  assert(svg.includes('points="50.0,146.7 620.0,40.0"'), svg);
  assert.throws(() => healthSvg([]), /at least one/);
});
