/** Statistics as values: moments of batches and of ranks, normalizing with them, and the algebra that forward is made of. */

import assert from "node:assert/strict";
import {
  allReduceMoments,
  batchMoments,
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  combineMoments,
  type Device,
  initBatchNorm,
  type LocalMoments,
  mergeMoments,
  normalizeWith,
  runRanks,
  stateToHost,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
  updateRunningStats,
} from "../../mod.ts";
import { momentsWire, sumsWire } from "../../lib/device_author.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf, throwsLike } from "../kit.ts";
import { normalArray } from "../random.ts";

const SHAPE = [4, 3, 5];

/** Registers the tests of statistics for a device. */
export function statisticsSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const batchOf = (device: Device<A>, seed: number, samples = SHAPE[0]) =>
    tensor(device, normalArray(samples * 15, seed).map((v) => 3 + 2 * v), [samples, 3, 5]);

  test("forward is moments, normalizing with them, and running statistics that follow", async (device) => {
    const state = initBatchNorm(device, 3);
    const x = batchOf(device, 1);
    const options = { activation: "relu", residual: batchOf(device, 2) } as const;
    const whole = batchNormForward(state, x, { device }, options);
    const moments = batchMoments(x, { device });
    const { output, saved } = normalizeWith(state, x, moments, { device }, options);
    const next = updateRunningStats(state, moments, { device });
    assert.deepEqual(await toArray(device, output), await toArray(device, whole.output));
    assert.deepEqual(await stateToHost(device, next), await stateToHost(device, whole.state));
    assert.equal(saved.moments, moments);
    assert.equal(whole.saved.moments, whole.moments);
    assert.deepEqual(
      [moments.kind, moments.count, moments.shape],
      ["local", 20, [1, 3]],
    );
    const dy = batchOf(device, 3);
    const [a, b] = [saved, whole.saved].map((s) => batchNormBackward(s, dy, { device }));
    assert.deepEqual(await toArray(device, a.gradInput), await toArray(device, b.gradInput));
  });

  test("moments of batches merged on the device are those of their union, empty ones included", async (device) => {
    const parts = [4, 0, 1, 7].map((samples, i) => batchOf(device, 5 + i, samples));
    const all = await Promise.all(parts.map((part) => toArray(device, part)));
    const union = tensor(device, all.flatMap((values) => [...values]), [12, 3, 5]);
    const merged = parts.map((part) => batchMoments(part, { device }))
      .reduce((a, b) => mergeMoments(a, b, { device }));
    const [is, wanted] = await Promise.all(
      [merged, batchMoments(union, { device })].map(({ data }) => device.toWire(data)),
    );
    assert.equal(merged.count, 60);
    assert.equal(is[0], 60);
    assertClose(is, wanted, { absolute: 0, relative: 4 * kit.ulps * EPSILON.float32 }, "merged");
    const empty = batchMoments(batchOf(device, 1, 0), { device });
    const alone = mergeMoments(empty, batchMoments(union, { device }), { device });
    assertClose(
      await device.toWire(alone.data),
      wanted,
      { absolute: 0, relative: kit.ulps * EPSILON.float32 },
      "an empty side changes nothing",
    );
  });

  test("a wire that was written is read, and merging folds as the format does", async (device) => {
    const [a, b] = [[4, 1, -2, 3, 8], [2, 5, 0.5, 1, 0]].map((wire) => Float64Array.from(wire));
    const [first, second] = [a, b].map((wire) => device.fromWire(momentsWire, wire));
    assertClose(await device.toWire(first), a, { absolute: 0, relative: 2 ** -40 }, "moments");
    const merged = await device.toWire(device.merge(first, second));
    const units = { absolute: 0, relative: kit.ulps * EPSILON.float32 };
    assertClose(merged, combineMoments(a, b), units, "merged moments");
    const [c, d] = [a, b].map((wire) => device.fromWire(sumsWire, wire.subarray(1)));
    const sums = await device.toWire(device.merge(c, d));
    assertClose(sums, sumsWire.combine(a.subarray(1), b.subarray(1)), units, "added sums");
    throwsLike(() => device.merge(first, c), TypeError, /gradient sums/);
    const x = tensor(device, [1, 2, 3, 4, 5], [5, 1]);
    throwsLike(() => device.merge(x.data, x.data), TypeError, /elements/);
  });

  test("moments of all ranks are what the synchronised forward returns", async (device) => {
    const state = initBatchNorm(device, 3);
    const seen = await runRanks(3, async (group) => {
      const effects = { device, group };
      const x = batchOf(device, 20 + group.rank, 2 * group.rank);
      const whole = await syncBatchNormForward(state, x, effects);
      const own = batchMoments(x, { device });
      const moments = await allReduceMoments(own, effects);
      const { output, saved } = normalizeWith(state, x, moments, { device });
      assert.deepEqual(await toArray(device, output), await toArray(device, whole.output));
      assert.deepEqual([moments.worldSize, moments.count], [3, 30]);
      const [a, b] = [
        await syncBatchNormBackward(saved, x, effects),
        await syncBatchNormBackward(whole.saved, x, effects),
      ];
      assert.deepEqual(await toArray(device, a.gradInput), await toArray(device, b.gradInput));
      return await device.toWire(moments.data);
    });
    assert.deepEqual(seen[1], seen[0]);
    assert.deepEqual(seen[2], seen[0]);
  });

  test("moments of a world of one are a copy", async (device) => {
    const refuse = () => Promise.reject(new Error("communicated"));
    const own = batchMoments(batchOf(device, 1), { device });
    const moments = await allReduceMoments(own, {
      device,
      group: { worldSize: 1, allReduce: refuse },
    });
    assert.notEqual(moments.data, own.data);
    assert.deepEqual(await device.toWire(moments.data), await device.toWire(own.data));
  });

  test("what are no moments, of other channels, freed or of one value is refused, and nothing changes", (device) => {
    const state = initBatchNorm(device, 3);
    const x = batchOf(device, 1);
    const moments = batchMoments(x, { device });
    const two = batchMoments(tensor(device, [1, 2, 3, 4], [2, 2]), { device });
    const one = batchMoments(tensor(device, [1, 2, 3], [1, 3]), { device });
    const functions = [
      (m: unknown) => normalizeWith(state, x, m as LocalMoments<A>, { device }),
      (m: unknown): BatchNormState<A> =>
        updateRunningStats(state, m as LocalMoments<A>, { device }),
    ];
    for (const call of functions) {
      throwsLike(() => call(moments.data), TypeError, /must be a record as of batchMoments/);
      throwsLike(() => call(undefined), TypeError, /must be a record as of batchMoments/);
      throwsLike(
        () => call(two),
        TypeError,
        /must be of shape \(1, 3\): current shape is \(1, 2\)/,
      );
      throwsLike(() => call(one), RangeError, /more than 1 value per channel/);
      throwsLike(() => call({ ...moments, count: 1.5 }), RangeError, /integer >= 0/);
      throwsLike(() => call({ ...moments, data: two.data }), TypeError, /7 numbers: .* holds 5/);
      throwsLike(() => call({ ...moments, data: x.data }), TypeError, /7 numbers: .* holds 60/);
    }
    throwsLike(() => mergeMoments(moments, two, { device }), TypeError, /channels must be equal/);
    const group = { ...moments, kind: "group", worldSize: 2 } as unknown as LocalMoments<A>;
    throwsLike(() => mergeMoments(moments, group, { device }), TypeError, /merge before allReduce/);
    device.free(moments.data);
    for (const call of functions) throwsLike(() => call(moments), TypeError, /freed/);
  });
}
