import assert from "node:assert/strict";
import {
  batchNormForward,
  describe,
  healthSvg,
  type History,
  historyTable,
  initBatchNorm,
  referenceDevice,
  runRanks,
  tensor,
  watch,
} from "../mod.ts";

const device = referenceDevice();
/** Two channels; the second is constant from the third batch on, the fifth has a NaN in the first. */
const BATCHES = [[1, 4, 3, 5], [2, 4, 6, 9], [1, 4, 5, 4], [0, 4, 9, 4], [NaN, 4, 1, 4], [
  1,
  4,
  2,
  4,
]];

/** Trains on a rank, one of which goes its own way in the fourth step. */
async function train(options: { most?: number } = {}, ranks = 1): Promise<readonly History[]> {
  return await runRanks(ranks, async (group) => {
    let [state, history] = [initBatchNorm(device, 2, { momentum: 1 }), null as History | null];
    for (const [step, values] of BATCHES.entries()) {
      const own = step === 3 && group.rank > 0 ? values.map((value) => 2 * value) : values;
      const x = tensor(device, own, [2, 2]);
      const forward = batchNormForward(state, x, { device });
      const effects = { device, ...(ranks > 1 && { group }) };
      const before = structuredClone(history);
      const next = await watch(history, state, effects, { moments: forward.moments, ...options });
      assert.deepEqual(history, before, "the history is kept");
      [state, history] = [forward.state, next];
    }
    return await watch(history, state, { device, ...(ranks > 1 && { group }) }, options);
  });
}

Deno.test("watch() notes collapses and since when, steps that are not finite, drift, and ranks that differ", async () => {
  const [history] = await train();
  assert.deepEqual(structuredClone(history), history, "plain data");
  assert.equal(history.seen, 7);
  assert.deepEqual(history.records.map(({ batches }) => batches), [0, 1, 2, 3, 4, 5, 6]);
  assert.deepEqual(history.records.map(({ collapsed }) => collapsed), [[], [], [], [1], [1], [1], [
    1,
  ]]);
  assert.deepEqual(history.collapsedSince, { 1: 3 });
  // NaN in the moments of the fifth batch, and from then on in the state.
  assert.deepEqual(history.nonFiniteAt, [4, 5, 6]);
  assert.deepEqual(history.differingAt, []);
  assert.equal(history.records.at(-1)!.meanDrift, null);
  assert(history.records[1].meanDrift! > 0);
  const histories = await train({}, 2);
  for (const { differingAt } of histories) assert.deepEqual(differingAt, [4]);
});

Deno.test("watch() thins what it keeps, and keeps the first and the last", async () => {
  const [history] = await train({ most: 3 });
  assert.equal(history.seen, 7);
  const batches = history.records.map(({ batches }) => batches);
  assert.deepEqual(batches, [0, 5, 6]);
  assert.deepEqual(history.collapsedSince, { 1: 3 });
});

Deno.test("historyTable() and healthSvg() show a history", async () => {
  const [history] = await train({}, 2);
  const lines = historyTable(history, 3).split("\n");
  assert.equal(lines.length, 1 + 3 + 3);
  assert.match(lines[1], /^batch 4 +4 +2 +1 +1 /);
  assert.deepEqual(lines.slice(4), [
    "not finite at batches: 4, 5, 6",
    "ranks differ at batches: 4",
    "collapsed channels: 1 (since 3)",
  ]);
  const svg = healthSvg(history.records);
  assert.equal(svg.match(/<polyline/g)!.length, 5);
  assert.match(svg, /batch 0.*batch 6/);
  assert(!/NaN|Infinity|undefined|null/.test(svg), svg);
  const still = await describe(initBatchNorm(device, 1), { device });
  assert(!/NaN|Infinity/.test(healthSvg([still])));
});

Deno.test("watch() refuses what is no history", async () => {
  const state = initBatchNorm(device, 1);
  await assert.rejects(
    watch([] as unknown as History, state, { device }),
    /history must be one as of watch/,
  );
  await assert.rejects(watch(null, state, { device }, { most: 1 }), /most must be an integer >= 2/);
  assert.throws(() => historyTable({ ...({} as History), records: [] }, 0), /latest/);
});
