/** Rules of running statistics, and one batch in parts, on a device. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  batchMoments,
  batchNormBackward,
  batchNormBackwardParts,
  batchNormForward,
  batchNormForwardParts,
  type Device,
  initBatchNorm,
  mergeMoments,
  type Momentum,
  momentumAt,
  runRanks,
  stateToHost,
  syncBatchNormBackwardParts,
  syncBatchNormBackwardPartsBlocking,
  syncBatchNormForwardParts,
  syncBatchNormForwardPartsBlocking,
  tensor,
  toArray,
  updateRunningStats,
} from "../../mod.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf, throwsLike } from "../kit.ts";
import { permute } from "../oracle.ts";
import { normalArray } from "../random.ts";

const CHANNELS = 3;

/** Registers the tests of rules and of parts for a device. */
export function rulesSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const units = {
    absolute: 8 * kit.ulps * EPSILON.float32,
    relative: 8 * kit.ulps * EPSILON.float32,
  };
  const numbers = (samples: number, seed: number) =>
    normalArray(samples * CHANNELS * 2, seed).map((v) => 3 + 2 * v);
  const of = (device: Device<A>, values: Float32Array | number[]) =>
    tensor(device, values, [values.length / (CHANNELS * 2), CHANNELS, 2]);

  test("a biased running variance follows m2 / count by any rule, an unbiased one m2 / (count - 1)", async (device) => {
    const rules: readonly Momentum[] = [
      0.25,
      null,
      { rule: "zeroDebiased", value: 0.25 },
      { rule: "cosine", from: 1, to: 0.125, steps: 2 },
    ];
    for (const momentum of rules) {
      let biased = initBatchNorm(device, CHANNELS, { momentum, runningVariance: "biased" });
      let unbiased = initBatchNorm(device, CHANNELS, { momentum });
      const wanted = { biased: Array(CHANNELS).fill(1), unbiased: Array(CHANNELS).fill(1) };
      for (let t = 1; t <= 4; t++) {
        const x = of(device, numbers(t, 60 + t));
        const moments = batchMoments(x, { device });
        const [count, ...rest] = await device.toWire(moments.data);
        const f = momentumAt(momentum, t);
        rest.slice(CHANNELS).forEach((m2, c) => {
          wanted.biased[c] = (1 - f) * wanted.biased[c] + f * m2 / count;
          wanted.unbiased[c] = (1 - f) * wanted.unbiased[c] + f * m2 / (count - 1);
        });
        biased = batchNormForward(biased, x, { device }).state;
        unbiased = updateRunningStats(unbiased, moments, { device });
      }
      const [b, u] = [await stateToHost(device, biased), await stateToHost(device, unbiased)];
      assertClose(b.runningVar!, wanted.biased, units, "biased");
      assertClose(u.runningVar!, wanted.unbiased, units, "unbiased");
      assert.deepEqual(b.runningMean, u.runningMean);
      assert.deepEqual([b.momentum, b.runningVariance], [momentum, "biased"]);
    }
  });

  test("a batch in parts on k ranks is the whole batch on one: outputs, gradients, state", async (device) => {
    const part = fc.integer({ min: 0, max: 3 });
    const ranks = fc.array(fc.array(part, { minLength: 1, maxLength: 3 }), {
      ...{ minLength: 1, maxLength: 3 },
    }).filter((counts) => counts.flat().some((count) => count > 0));
    await fc.assert(
      fc.asyncProperty(ranks, fc.boolean(), fc.boolean(), async (counts, relu, added) => {
        const samples = counts.flat().reduce((a, b) => a + b);
        const [x, dy] = [numbers(samples, 80), normalArray(samples * CHANNELS * 2, 81)];
        const r = normalArray(samples * CHANNELS * 2, 82);
        const options = relu ? { activation: "relu" } as const : {};
        const state = initBatchNorm(device, CHANNELS);
        const all = { ...options, ...(added && { residual: of(device, r) }) };
        const whole = batchNormForward(state, of(device, x), { device }, all);
        const back = batchNormBackward(whole.saved, of(device, dy), { device });
        let at = 0;
        const cuts = counts.map((list) =>
          list.map((count) => [at, at += count * CHANNELS * 2] as const)
        );
        const cut = (values: Float32Array | number[], rank: number) =>
          cuts[rank].map(([from, to]) => of(device, values.slice(from, to)));
        const last = (values: Float32Array) =>
          tensor(
            device,
            permute(values, { channels: CHANNELS, inner: 2 }, "channelsLast"),
            [values.length / (CHANNELS * 2), CHANNELS, 2],
            { format: "channelsLast" },
          );
        const local = counts.length === 1 && !relu;
        const results = await runRanks(counts.length, async (group) => {
          const effects = { device, group };
          const [parts, grads] = [cut(x, group.rank), cut(dy, group.rank)];
          const residuals = cuts[group.rank].map(([from, to]) => last(r.slice(from, to)));
          const chosen = { ...options, ...(added && { residuals }) };
          if (local) {
            const forward = batchNormForwardParts(state, parts, effects, chosen);
            return { forward, back: batchNormBackwardParts(forward.saved, grads, effects) };
          }
          const forward = await syncBatchNormForwardParts(state, parts, effects, chosen);
          return { forward, back: await syncBatchNormBackwardParts(forward.saved, grads, effects) };
        });
        const joined = async (tensors: readonly Parameters<typeof toArray<A>>[1][]) =>
          (await Promise.all(tensors.map((t) => toArray(device, t)))).flatMap((v) => [...v]);
        const outputs = await joined(results.flatMap(({ forward }) => [...forward.outputs]));
        assertClose(outputs, await toArray(device, whole.output), units, "outputs");
        const gradInputs = await joined(results.flatMap(({ back }) => [...back.gradInputs]));
        assertClose(gradInputs, await toArray(device, back.gradInput), units, "gradInputs");
        const residuals = results.flatMap(({ back }) => [...back.gradResiduals ?? []]);
        assert.equal(residuals.length, added ? counts.flat().length : 0);
        if (added) {
          const values = await Promise.all(residuals.map(async (tensor) => {
            assert.equal(tensor.format, "channelsLast");
            const own = await toArray(device, tensor);
            return [...permute(own, { channels: CHANNELS, inner: 2 }, "channelsFirst")];
          }));
          const wanted = await toArray(device, back.gradResidual!);
          assertClose(values.flat(), wanted, units, "gradResiduals");
        }
        for (const name of ["gradWeight", "gradBias"] as const) {
          const own = await Promise.all(results.map(({ back }) => device.download(back[name]!)));
          const sum = own.reduce((a, b) => a.map((v, i) => v + b[i]));
          const loose = { absolute: samples * units.absolute, relative: units.relative };
          assertClose(sum, await device.download(back[name]!), loose, name);
        }
        const expected = await stateToHost(device, whole.state);
        for (const { forward } of results) {
          const is = await stateToHost(device, forward.state);
          assert.equal(is.numBatchesTracked, 1);
          assertClose(is.runningMean!, expected.runningMean!, units, "running mean");
          assertClose(is.runningVar!, expected.runningVar!, units, "running variance");
        }
      }),
      { numRuns: Math.min(kit.cases ?? 20, 20), seed: 25 },
    );
  });

  test("parts over a group without waiting are those that are awaited, and can be cancelled", async (device) => {
    const state = initBatchNorm(device, CHANNELS);
    const parts = [1, 2].map((seed) => of(device, numbers(2, seed)));
    const dys = [3, 4].map((seed) => of(device, numbers(2, seed)));
    // The other rank is empty.
    const blocking = {
      rank: 0,
      worldSize: 2,
      allReduceBlocking: (local: Float64Array | (() => Float64Array)) =>
        typeof local === "function" ? local() : local,
    };
    const awaited = batchNormForwardParts(state, parts, { device });
    const wanted = batchNormBackwardParts(awaited.saved, dys, { device });
    const effects = { device, group: blocking };
    const signal = AbortSignal.abort(new Error("enough"));
    const cancelled = runRanks(
      2,
      (group) => syncBatchNormForwardParts(state, parts, { device, group }, { signal }),
    );
    await assert.rejects(cancelled, /cancelled/);
    if (!device.toWireNow) {
      assert.throws(
        () => syncBatchNormForwardPartsBlocking(state, parts, effects),
        /must be able to read back at once/,
      );
      return;
    }
    const { saved, outputs } = syncBatchNormForwardPartsBlocking(state, parts, effects);
    const back = syncBatchNormBackwardPartsBlocking(saved, dys, effects);
    for (const i of [0, 1]) {
      const [y, dx] = [outputs[i], back.gradInputs[i]];
      assertClose(await toArray(device, y), await toArray(device, awaited.outputs[i]), units, "y");
      const gradients = await toArray(device, wanted.gradInputs[i]);
      assertClose(await toArray(device, dx), gradients, units, "gradInputs");
    }
  });

  test("statistics of micro-batches merged and applied once are the big batch's", async (device) => {
    const state = initBatchNorm(device, CHANNELS);
    const x = numbers(6, 90);
    const moments = [[0, 1], [1, 1], [1, 4], [4, 6]]
      .map(([a, b]) => of(device, x.slice(a * CHANNELS * 2, b * CHANNELS * 2)))
      .map((micro) => batchMoments(micro, { device }))
      .reduce((a, b) => mergeMoments(a, b, { device }));
    const is = await stateToHost(device, updateRunningStats(state, moments, { device }));
    const whole = batchNormForward(state, of(device, x), { device });
    const wanted = await stateToHost(device, whole.state);
    assert.equal(is.numBatchesTracked, 1);
    assertClose(is.runningVar!, wanted.runningVar!, units, "running variance");
    assertClose(is.runningMean!, wanted.runningMean!, units, "running mean");
  });

  test("parts that are no batch are refused, and the state is kept", (device) => {
    const state = initBatchNorm(device, CHANNELS);
    const forward = (parts: unknown) =>
      batchNormForwardParts(state, parts as ReturnType<typeof of>[], { device });
    throwsLike(() => forward([]), TypeError, /inputs must be a list of at least one/);
    const other = tensor(device, [1, 2, 3, 4], [2, 2, 1]);
    throwsLike(
      () => forward([of(device, numbers(2, 1)), other]),
      TypeError,
      /part 1, as its channels/,
    );
    const one = tensor(device, [1, 2, 3], [1, CHANNELS]);
    throwsLike(() => forward([one]), RangeError, /value/);
    const two = [1, 2].map((seed) => of(device, numbers(2, seed)));
    const add = (residuals: unknown) =>
      batchNormForwardParts(state, two, { device }, { residuals: residuals as typeof two });
    throwsLike(() => add([two[0]]), TypeError, /a residual for each part: .* 1 and 2/);
    throwsLike(() => add(two[0]), TypeError, /residuals must be a list/);
    throwsLike(() => add([two[0], one]), TypeError, /part 1, as the residual's shape/);
    const [a, b] = [1, 2].map((seed) => forward([of(device, numbers(2, seed))]));
    const dys = [1, 2].map((seed) => of(device, numbers(2, seed)));
    throwsLike(
      () => batchNormBackwardParts([a.saved[0], b.saved[0]], dys, { device }),
      TypeError,
      /all parts must be of one batch/,
    );
    throwsLike(
      () => batchNormBackwardParts(a.saved, dys, { device }),
      TypeError,
      /a gradOutput for each part/,
    );
  });
}
