/** The exact reference device: the law to the last bit, and results against rational numbers. */

import assert from "node:assert/strict";
import fc from "fast-check";
import * as bn from "../../mod.ts";
import { runRanks } from "../../mod.ts";
import { assertSame, exactAlone, exactRank } from "./law.ts";
import { exactScenarios } from "./scenario.ts";
import { distanceInUlps, fractionOf, ratio } from "./rational.ts";
import { assertClose } from "../kit.ts";
import { normalArray, normals, uniforms } from "../random.ts";

Deno.test("exact reference: 1,200 partitions have the bits of one rank", async () => {
  const property = fc.asyncProperty(exactScenarios(16), async (scenario) => {
    const device = bn.referenceDevice({ exact: true });
    const { ranks } = scenario.partition;
    const parts = await runRanks(ranks, (group) => exactRank(device, group, scenario));
    assertSame(parts, await exactAlone(scenario));
  });
  await fc.assert(property, { numRuns: 1200, seed: 2030 });
});

Deno.test("exact reference: mean and m2 are the float64 next to those of rational numbers", async () => {
  const device = bn.referenceDevice({ exact: true });
  for (let seed = 1; seed <= 200; seed++) {
    const [normal, uniform] = [normals(seed), uniforms(seed)];
    const reach = seed % 2 ? 120 : 4;
    const values = Float32Array.from(
      { length: 1 + seed % 40 },
      () => normal() * 2 ** (reach * (2 * uniform() - 1)),
    );
    const x = bn.tensor(device, values, [values.length, 1]);
    const { data } = bn.batchMoments(x, { device });
    const [, mean, m2] = device.wires!.moments.rounded!(await device.toWire(data));
    const exact = [...values].map(fractionOf);
    const n = BigInt(values.length);
    const sum = exact.reduce((a, b) => a + b, 0n);
    const squares = exact.reduce((a, b) => a + b * b, 0n);
    assert(distanceInUlps(mean, ratio(sum, n, 1)) <= 0.5, `mean of seed ${seed}`);
    assert(distanceInUlps(m2, ratio(n * squares - sum * sum, n, 2)) <= 0.5, `m2 of seed ${seed}`);
  }
});

Deno.test("exact reference: running statistics are within 0.501 units of float32", () => {
  const device = bn.referenceDevice({ exact: true });
  const check = async (values: Float32Array, old: number, momentum: number) => {
    const state = bn.stateFromHost(device, {
      ...{ numFeatures: 1, eps: 1e-5, momentum, weight: null, bias: null, numBatchesTracked: 0 },
      runningMean: Float32Array.of(old),
      runningVar: Float32Array.of(Math.abs(old)),
    });
    const x = bn.tensor(device, values, [values.length, 1]);
    const { state: next } = bn.batchNormForward(state, x, { device });
    const host = await bn.stateToHost(device, next);
    const exact = [...values].map(fractionOf);
    const n = BigInt(values.length);
    const sum = exact.reduce((a, b) => a + b, 0n);
    const squares = exact.reduce((a, b) => a + b * b, 0n);
    const [kept, f, before] = [1 - momentum, momentum, Math.fround(old)].map(fractionOf);
    const unit = fractionOf(1);
    const mean = ratio(kept * before * n + f * sum, n, 2);
    const variance = ratio(
      kept * (before < 0n ? -before : before) * n * (n - 1n) * unit + f * (n * squares - sum * sum),
      n * (n - 1n),
      3,
    );
    assert(distanceInUlps(host.runningMean![0], mean, 24) <= 0.501, `mean of ${values}, ${old}`);
    assert(distanceInUlps(host.runningVar![0], variance, 24) <= 0.501, `variance of ${values}`);
  };
  const run = async () => {
    for (let seed = 1; seed <= 300; seed++) {
      const normal = normals(seed);
      const values = Float32Array.from({ length: 2 + seed % 9 }, normal);
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      const momentum = [0.1, 0.5, 0.99, 0.3][seed % 4];
      // Every second time what was observed cancels what there was, but for some last bits.
      const old = seed % 2 ? normal() : -mean * momentum / (1 - momentum);
      await check(values, old, momentum);
    }
  };
  return run();
});

Deno.test("exact: a constant channel has a variance of 0, whatever its value", async () => {
  const device = bn.referenceDevice({ exact: true });
  for (const value of [0.1, 1e30, -3e-40, 16777217]) {
    const x = bn.tensor(device, new Float32Array(7).fill(value), [7, 1]);
    const { data } = bn.batchMoments(x, { device });
    const [, mean, m2] = device.wires!.moments.rounded!(await device.toWire(data));
    assert.equal(mean, Math.fround(value));
    assert.equal(m2, 0);
  }
});

Deno.test("exact: a direction is that of float64 arithmetic, but for float32's rounding", async () => {
  const shape = [6, 3, 4];
  const values = [1, 2, 3].map((seed) => normalArray(72, seed, seed === 1 ? 50 : 0));
  const vectors = [4, 5].map((seed) => normalArray(3, seed));
  const moved = await Promise.all([true, false].map((exact) => {
    const device = bn.referenceDevice({ exact });
    const [x, input, residual] = values.map((own) => bn.tensor(device, own, shape));
    const [weight, bias] = vectors.map((own) => device.upload(own));
    const options = { activation: "relu", residual } as const;
    const state = bn.initBatchNorm(device, 3);
    const { saved } = bn.batchNormForward(state, x, { device }, options);
    const directions = { input, weight, bias, residual: x };
    return bn.toArray(device, bn.batchNormJvp(saved, directions, { device }));
  }));
  assert(moved[0].some((value) => value === 0) && moved[0].some((value) => value !== 0));
  // The residual's direction is 50, one of whose units is 2^-18.
  assertClose(moved[0], moved[1], { absolute: 2 ** -17, relative: 0 }, "direction");
});

Deno.test("exact: what is not covered is refused in one sentence that says what to use", async () => {
  const device = bn.referenceDevice({ exact: true });
  const effects = { device };
  const values = [1, 2, 4, 8, 3, 5, 7, 9];
  const [x, last] = (["channelsFirst", "channelsLast"] as const).map((format) =>
    bn.tensor(device, values, [2, 2, 2], { format })
  );
  const state = bn.initBatchNorm(device, 2);
  const { saved } = bn.batchNormForward(state, x, effects);
  const bounds = { rmax: 2, dmax: 1 };
  const layered = (options: object) =>
    bn.applyLayer(bn.initLayer(device, "batchNorm", 2, options), x, effects);
  const scale = bn.tensor(device, [1, 2, 3, 4], [2, 2]);
  const activation = { negativeSlope: 0.1 };
  const cotangents = { gradInput: x };
  const refused: Readonly<Record<string, readonly (() => unknown)[]>> = {
    "must honour secondOrder": [
      () => bn.batchNormBackwardBackward(saved, x, cotangents, effects),
      () => bn.batchNormInferBackwardBackward(state, x, x, cotangents, effects),
      () => bn.batchNormBackwardMoments(saved, x, {}, effects),
    ],
    "statistics must be rounded numbers": [
      () => bn.batchNormForwardGhost(state, x, effects, { ghost: 1 }),
      () => bn.batchRenormForward(state, x, effects, bounds),
      () => layered({ ghost: 1 }),
      () => layered({ renorm: bounds }),
    ],
    "must honour arrange": [() => bn.modulate(last, { scale }, effects)],
    "must honour rectifier": [
      () => bn.batchNormForward(state, x, effects, { activation }),
      () => bn.batchNormInfer(state, x, effects, { activation }),
      () => bn.modulate(x, { scale }, effects, { activation }),
    ],
  };
  for (const [what, calls] of Object.entries(refused)) {
    const told = new RegExp(`^Cannot [^:]* as .*${what}.*; .*use a device without exact$`);
    for (const call of calls) {
      await assert.rejects(async () => await call(), { name: "DeviceError", message: told });
    }
  }
});

Deno.test("exact: a batch that is modulated channels first has the bits of its samples alone", async () => {
  const shape = [3, 2, 4];
  const [values, gradients] = [1, 2].map((seed) => normalArray(24, seed, 1e3));
  const rows = normalArray(6, 3);
  const bits = async (from: number, to: number) => {
    const device = bn.referenceDevice({ exact: true });
    const put = (all: Float32Array, each: readonly number[]) => {
      const size = each.reduce((product, extent) => product * extent, 1);
      return bn.tensor(device, all.slice(from * size, to * size), [to - from, ...each]);
    };
    const [x, dy] = [values, gradients].map((all) => put(all, shape.slice(1)));
    const modulation = { scale: put(rows, [2]), offset: put(rows.toReversed(), [2]) };
    const { output, saved } = bn.modulate(x, modulation, { device }, { activation: "relu" });
    const back = bn.modulateBackward(saved, dy, { device });
    const all = [output, back.gradInput, back.gradScale!, back.gradOffset!];
    return await Promise.all(all.map((tensor) => bn.toArray(device, tensor)));
  };
  const whole = await bits(0, 3);
  const alone = await Promise.all([0, 1, 2].map((n) => bits(n, n + 1)));
  whole.forEach((values, i) => {
    assert.deepEqual([...values], alone.flatMap((results) => [...results[i]]));
  });
});

Deno.test("exact: a rank that is not exact meets none that is, and all are told", async () => {
  const run = runRanks(3, async (group) => {
    const device = bn.referenceDevice({ exact: group.rank !== 1 });
    const x = bn.tensor(device, [group.rank, 1], [2, 1]);
    const error = await bn.syncBatchNormForward(bn.initBatchNorm(device, 1), x, { device, group })
      .then(() => null, (error) => error);
    assert(error instanceof bn.CollectiveError);
    assert.equal(error.code, "disagreement");
    return error.message;
  });
  const [first, ...others] = await run;
  assert.match(first, /C=1 float32, exact/);
  assert.match(first, /C=1 float32"? on rank 1|rank 1[^;]*C=1 float32(?!, exact)/);
  for (const other of others) assert.equal(other, first);
});
