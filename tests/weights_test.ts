/** Weights of examples above devices: layers, whole models, what is a layer's own or its call's. */

import assert from "node:assert/strict";
import {
  applyLayer,
  backwardLayer,
  batchNormForward,
  batchNormInfer,
  freeze,
  inferLayer,
  initLayer,
  initLazyLayer,
  preciseStatistics,
  type ReferenceArray,
  referenceDevice,
  runRanks,
  type Tensor,
  tensor,
  toArray,
  type WeightOptions,
} from "../mod.ts";
import { assertClose, EPSILON } from "./kit.ts";
import { normalArray } from "./random.ts";

const device = referenceDevice();
const units = { absolute: 8 * EPSILON.float32, relative: 8 * EPSILON.float32 };
const [N, C, L] = [4, 2, 5];
const numbers = normalArray(N * C * L, 1, 3, 2);
const lengths = Int32Array.of(5, 0, 2, 3);
const part = (from: number, to: number) =>
  tensor(device, numbers.slice(from * C * L, to * C * L), [to - from, C, L]);
/** The positions that count, as rows (M, C). */
const packed = () => {
  const rows = [...lengths].flatMap((length, n) =>
    Array.from({ length }, (_, i) => [0, 1].map((c) => numbers[(n * C + c) * L + i]))
  );
  return tensor(device, rows.flat(), [rows.length, C]);
};

Deno.test("a layer takes weights or lengths at the call, over its group", async () => {
  const layer = initLayer(device, "batchNorm1d", C, { processGroup: "world" });
  const whole = batchNormForward(layer.state, packed(), { device });
  await runRanks(2, async (group) => {
    const effects = { device, groups: { world: group } };
    const [from, to] = group.rank === 0 ? [0, 3] : [3, 4];
    const options = { lengths: lengths.slice(from, to) };
    const forward = await applyLayer(layer, part(from, to), effects, options);
    const [is, wanted] = [forward.layer.state, whole.state].map(({ runningVar }) =>
      device.download(runningVar!)
    );
    assertClose(await is, await wanted, units, "running variance");
    const dy = tensor(device, new Float32Array((to - from) * C * L).fill(1), [to - from, C, L]);
    const { gradInput } = await backwardLayer(forward.saved, dy, effects);
    const dx = await toArray(device, gradInput);
    // Nothing of the statistics: weight * s * dy.
    const masked = group.rank === 0 ? dx.subarray(C * L, 2 * C * L) : dx.subarray(3, L);
    assert(masked.every((value) => value > 0));
  });
  await runRanks(2, async (group) => {
    const effects = { device, groups: { world: group } };
    const own = group.rank === 0 ? { lengths: lengths.slice(0, 2) } : {};
    await assert.rejects(applyLayer(layer, part(0, 2), effects, own), { name: "CollectiveError" });
  });
});

Deno.test("a lazy layer and a local one count by weight; a frozen one checks weights, and needs none", async () => {
  const options = { lengths };
  const lazy = await applyLayer(initLazyLayer("batchNorm1d"), part(0, N), { device }, options);
  const whole = batchNormForward(initLayer(device, "batchNorm1d", C).state, packed(), { device });
  const [is, wanted] = [lazy.layer.state!, whole.state].map(({ runningMean }) =>
    device.download(runningMean!)
  );
  assertClose(await is, await wanted, units, "running mean");
  const frozen = freeze(lazy.layer);
  const run = (options: WeightOptions<ReferenceArray>) =>
    applyLayer(frozen, part(0, N), { device }, options);
  const [weighted, plain] = [await run(options), await run({})];
  assert.deepEqual(
    await toArray(device, weighted.output),
    await toArray(device, plain.output),
  );
  const dy = tensor(device, normalArray(N * C * L, 2), [N, C, L]);
  const [one, two] = await Promise.all(
    [weighted, plain].map(async ({ saved }) =>
      await toArray(device, (await backwardLayer(saved, dy, { device })).gradInput)
    ),
  );
  assert.deepEqual(one, two);
  await assert.rejects(run({ lengths: Int32Array.of(1) }), /lengths must be N/);
  assert.deepEqual(
    await toArray(device, inferLayer(lazy.layer, part(0, N), { device }, options)),
    await toArray(device, batchNormInfer(lazy.layer.state!, part(0, N), { device })),
  );
});

Deno.test("precise statistics count by weight, the same for any split over batches and ranks, one of them without any", async () => {
  const model = { norm: initLayer(device, "batchNorm1d", C) };
  const expected = await preciseStatistics(model, [packed()], (model, x, { norm }) => {
    norm(model.norm, x);
  }, { device });
  const [mean, variance] = await Promise.all(
    [expected.norm.state.runningMean!, expected.norm.state.runningVar!].map(device.download),
  );
  type Batch = readonly [Tensor<ReferenceArray>, Int32Array];
  const batch = (from: number, to: number): Batch => [part(from, to), lengths.slice(from, to)];
  const splits: readonly (readonly (readonly Batch[])[])[] = [
    [[batch(0, 4)]],
    [[batch(0, 1), batch(1, 4)], []],
    [[batch(0, 2)], [batch(2, 3), batch(3, 4)], []],
  ];
  for (const ranks of splits) {
    await runRanks(ranks.length, async (group) => {
      const { norm } = await preciseStatistics(
        model,
        ranks[group.rank],
        (model, [x, lengths], { norm }) => void norm(model.norm, x, { lengths }),
        { device, group },
      );
      assertClose(await device.download(norm.state.runningMean!), mean, units, "mean");
      assertClose(await device.download(norm.state.runningVar!), variance, units, "variance");
    });
  }
  await runRanks(2, async (group) => {
    const run = preciseStatistics(
      model,
      [batch(0, 2)],
      (model, [x, lengths], { norm }) =>
        void norm(model.norm, x, group.rank === 0 ? { lengths } : {}),
      { device, group },
    );
    await assert.rejects(run, { name: "CollectiveError" });
  });
});
