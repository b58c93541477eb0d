/** Where peers go wrong, each a test. Rows on masks and conversion come with those. */

import assert from "node:assert/strict";
import {
  type AllReduce,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  combineMoments,
  type Device,
  initBatchNorm,
  type ProcessGroup,
  runRanks,
  stateToHost,
  sum,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../../mod.ts";
import { momentsWire } from "../../lib/device_author.ts";
import { formatOn } from "../../lib/wire.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import * as oracle from "../oracle.ts";
import { normalArray } from "../random.ts";

/** Registers the tests that peers fail, for a device. */
export function peerSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const fine = { relative: kit.ulps * EPSILON.float32, absolute: kit.ulps * EPSILON.float32 };
  const ranksOf = (device: Device<A>, parts: readonly (readonly number[])[], eps = 1e-5) => {
    const state = initBatchNorm(device, 1, { momentum: 1, eps });
    return runRanks(parts.length, async (group: ProcessGroup) => {
      const part = parts[group.rank];
      const input = tensor(device, part, [part.length, 1]);
      const forward = await syncBatchNormForward(state, input, { device, group });
      const backward = await syncBatchNormBackward(forward.saved, input, { device, group });
      return {
        y: [...await toArray(device, forward.output)],
        dx: [...await toArray(device, backward.gradInput)],
        state: await stateToHost(device, forward.state),
      };
    });
  };
  const whole = (values: readonly number[]) => ({ values, channels: 1, inner: 1 });
  const plain = { weight: null, bias: null, eps: 1e-5 };

  test("uneven ranks do not weigh alike (Flax, Equinox, Horovod TF, MXNet, Paddle)", async (device) => {
    const parts = [[1], [2, 3, 4, 5, 6, 7, 8], [50, 60]];
    const { mean, variance } = oracle.statistics(whole(parts.flat()));
    for (const { state } of await ranksOf(device, parts)) {
      assertClose(state.runningMean ?? [], mean, fine, "mean");
      assertClose(state.runningVar ?? [], [variance[0] * 10 / 9], fine, "unbiased variance");
    }
  });

  test("the variance survives a large mean (Haiku)", async (device) => {
    for (const [mean, std] of [[1e3, 1], [1e4, 1], [1e5, 1], [1e6, 1], [1e3, 1e-3]]) {
      const values = normalArray(64, 1, mean, std);
      const parts = [values.subarray(0, 1), values.subarray(1, 40), values.subarray(40)];
      const results = await ranksOf(device, parts.map((part) => [...part]));
      const batch = whole([...values]);
      const expected = oracle.trainForward(batch, plain);
      const what = `mean ${mean}, std ${std}`;
      // |y| is at most sqrt(64) = 8; the mean does not enter the tolerance.
      const tolerance = { relative: 0, absolute: 8 * kit.ulps * EPSILON.float32 };
      assertClose(results.flatMap(({ y }) => y), expected, tolerance, what);
      const [variance] = oracle.statistics(batch).variance;
      const unbiased = [variance * 64 / 63];
      const relative = kit.ulps * EPSILON.float32;
      assertClose(results[0].state.runningVar ?? [], unbiased, { relative, absolute: 0 }, what);
    }
  });

  test("backward does not touch the running statistics (MXNet)", async (device) => {
    const state = initBatchNorm(device, 2);
    const x = tensor(device, [1, 2, 3, 4], [2, 2]);
    const forward = batchNormForward(state, x, { device });
    const before = await stateToHost(device, forward.state);
    batchNormBackward(forward.saved, x, { device });
    batchNormBackward(forward.saved, x, { device });
    assert.deepEqual(await stateToHost(device, forward.state), before);
  });

  test("backward divides by the count of all ranks (mmcv)", async (device) => {
    const parts = [[0.5], [1, -2, 4], [3, 7]];
    const results = await ranksOf(device, parts);
    const expected = oracle.trainBackward(whole(parts.flat()), parts.flat(), plain).gradInput;
    assertClose(
      results.flatMap(({ dx }) => dx),
      expected,
      { ...fine, relative: 1e-5 },
      "gradInput",
    );
  });

  test("running statistics do not decay when all ranks are empty (PyTorch)", async (device) => {
    const state = initBatchNorm(device, 2);
    const empty = tensor(device, [], [0, 2, 3, 3]);
    await runRanks(3, async (group) => {
      const forward = await syncBatchNormForward(state, empty, { device, group });
      assert.equal(forward.state, state);
    });
    assert.deepEqual((await stateToHost(device, state)).runningVar, Float32Array.of(1, 1));
  });

  test("a constant channel with eps 0 is never NaN, synced or not (PyTorch)", async (device) => {
    // 0.1, 1e3 and 1/3 have no short sums: a mean that is off by an ulp would give a variance.
    for (const value of [0.1, 1e3, 1 / 3, 0]) {
      const parts = [[value], new Array(11).fill(value), [], [value, value]];
      for (const { y, dx, state } of await ranksOf(device, parts, 0)) {
        assert(y.every((v) => v === 0) && dx.every((v) => v === 0), `value ${value}`);
        assert.deepEqual(state.runningVar, Float32Array.of(0));
        assert.deepEqual(state.runningMean, Float32Array.of(value));
      }
      const frozen = { ...initBatchNorm(device, 1, { eps: 0, trackRunningStats: false }) };
      const x = tensor(device, parts[1], [11, 1]);
      const y = await toArray(device, batchNormInfer(frozen, x, { device }));
      assert(y.every((v) => v === 0));
    }
  });

  test("counts beyond 2^24 are exact (PyTorch)", async (device) => {
    for (const count of [2 ** 24 + 1, 2 ** 33 + 1]) {
      const merged = combineMoments(
        Float64Array.of(count - 1, 1, 5),
        Float64Array.of(1, 1, 0),
      );
      assert.deepEqual([...merged], [count, 1, 5]);
      const array = device.fromWire(momentsWire, merged);
      assert.equal((await device.toWire(array))[0], count);
      device.free(array);
    }
  });

  test("a tiny variance is not rebuilt from its inverse root (PyTorch)", async (device) => {
    const values = normalArray(50, 2, 0, 1e-4);
    const [variance] = oracle.statistics(whole([...values])).variance;
    const [{ state }] = await ranksOf(device, [[...values.subarray(0, 20)], [
      ...values.subarray(20),
    ]]);
    const tolerance = { relative: kit.ulps * EPSILON.float32, absolute: 0 };
    assertClose(state.runningVar ?? [], [variance * 50 / 49], tolerance, "variance 1e-8");
  });

  test("recomputation does not count a batch twice (PyTorch)", async (device) => {
    const state = initBatchNorm(device, 1);
    const x = tensor(device, [1, 2, 3], [3, 1]);
    const first = batchNormForward(state, x, { device });
    const again = batchNormForward(state, x, { device });
    assert.deepEqual(
      await stateToHost(device, again.state),
      await stateToHost(device, first.state),
    );
    const third = batchNormForward(first.state, x, { device }, { updateRunningStats: false });
    assert.equal(third.state, first.state);
    assert.deepEqual(await toArray(device, third.output), await toArray(device, first.output));
  });

  test("a layer that one rank skips is an error, not a hang (all)", async (device) => {
    const [a, b] = [initBatchNorm(device, 1), initBatchNorm(device, 2)];
    const x = tensor(device, [1, 2], [2, 1]);
    const y = tensor(device, [1, 2, 3, 4], [2, 2]);
    const messages = await runRanks(2, async (group) => {
      const effects = { device, group };
      if (group.rank === 0) {
        return await syncBatchNormForward(a, x, effects).catch((error) => error.message);
      }
      return await syncBatchNormForward(b, y, effects).catch((error) => error.message);
    });
    assert.equal(messages[0], messages[1]);
    assert.match(messages[0], /rank 0 called.*C=1 float32.*rank 1 called.*C=2 float32/);
  });

  test("one more wrong sum cannot pass: the statistics are merged, not added", async (device) => {
    let used: unknown;
    const allReduce: AllReduce = async (local, combine) => {
      used = combine;
      return combine(await local, await local);
    };
    const state = initBatchNorm(device, 1);
    const x = tensor(device, [1, 3], [2, 1]);
    const group = { worldSize: 2, allReduce };
    const { saved } = await syncBatchNormForward(state, x, { device, group });
    assert.equal(used, formatOn(device, momentsWire).combine);
    await syncBatchNormBackward(saved, x, { device, group });
    assert.equal(used, sum);
  });

  test("population statistics do not depend on how the data is cut", async (device) => {
    const values = normalArray(128 * 3, 3, 1e6);
    const cuts = [[2, 2, 4, 8, 16, 32, 64], [128], [64, 32, 16, 8, 4, 2, 2], new Array(64).fill(2)];
    const { mean, variance } = oracle.statistics({ values, channels: 3, inner: 1 });
    const { length, combine, rounded } = formatOn(device, momentsWire);
    for (const sizes of cuts) {
      let from = 0;
      let population: Float64Array = new Float64Array(length(3));
      for (const size of sizes) {
        const input = tensor(device, values.slice(3 * from, 3 * (from + size)), [size, 3]);
        const moments = device.moments({ input });
        population = combine(population, await device.toWire(moments));
        device.free(input.data, moments);
        from += size;
      }
      population = rounded?.(population) ?? population;
      assert.equal(population[0], 128);
      // hi + lo float32 hold a mean of 1e6 to 2^-48; its error enters m2 only squared.
      const close = { relative: kit.ulps * 2 ** -47, absolute: 0 };
      assertClose(population.subarray(1, 4), mean, close, `${sizes}: mean`);
      const m2 = variance.map((v) => 128 * v);
      const relative = { relative: kit.ulps * EPSILON.float32, absolute: 0 };
      assertClose(population.subarray(4), m2, relative, `${sizes}: m2`);
    }
  });

  for (const size of [1, 2, 4]) {
    test(`groups of ${size} of 4 ranks, offset 1e6`, async (device) => {
      const all = normalArray(4 * 6, 4, 1e6);
      const state = initBatchNorm(device, 2);
      const outputs = await runRanks(4, async (world) => {
        const group = await world.split(Math.floor(world.rank / size));
        const input = tensor(device, all.slice(6 * world.rank, 6 * world.rank + 6), [3, 2]);
        const { output } = await syncBatchNormForward(state, input, { device, group });
        return [...await toArray(device, output)];
      });
      for (let first = 0; first < 4; first += size) {
        const values = all.slice(6 * first, 6 * (first + size));
        const expected = oracle.trainForward({ values, channels: 2, inner: 1 }, plain);
        const tolerance = { relative: 0, absolute: 4 * kit.ulps * EPSILON.float32 };
        assertClose(
          outputs.slice(first, first + size).flat(),
          expected,
          tolerance,
          `from ${first}`,
        );
      }
    });
  }

  if (kit.nonFinite) {
    test("no infinity comes through where no gradient flows", async (device) => {
      const state = initBatchNorm(device, 1);
      const x = tensor(device, [-Infinity, 1], [2, 1]);
      const dy = tensor(device, [1, 2], [2, 1]);
      const options = { activation: "relu" } as const;
      const { gradWeight, gradBias } = batchNormInferBackward(state, x, dy, { device }, options);
      assert(gradWeight !== null && gradBias !== null);
      const s = 1 / Math.sqrt(1 + 1e-5);
      assertClose(await device.download(gradWeight), [2 * s], fine, "gradWeight");
      assertClose(await device.download(gradBias), [2], fine, "gradBias");
      const unit = initBatchNorm(device, 1, { eps: 0 });
      const values = tensor(device, [NaN, -1, 2], [3, 1]);
      const rectified = batchNormInfer(unit, values, { device }, { activation: "relu" });
      assert.deepEqual(await toArray(device, rectified), Float32Array.of(NaN, 0, 2));
    });
  }

  test("NaN and infinities stay in their channel", async (device) => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const state = initBatchNorm(device, 2);
      const results = await runRanks(2, async (group) => {
        const values = group.rank === 0 ? [1, bad, 2, 4] : [3, 5, 4, 6];
        const input = tensor(device, values, [2, 2]);
        const forward = await syncBatchNormForward(state, input, { device, group });
        return [...await toArray(device, forward.output)];
      });
      const [first, second] = [0, 1].map((channel) =>
        results.flat().filter((_, i) => i % 2 === channel)
      );
      const expected = oracle.trainForward(whole([1, 2, 3, 4]), plain);
      assertClose(first, expected, fine, "the other channel");
      if (kit.nonFinite) assert(second.every(Number.isNaN), `${bad} makes its channel NaN`);
    }
  });
}
