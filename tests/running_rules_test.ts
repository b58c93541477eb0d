import assert from "node:assert/strict";
import fc from "fast-check";
import {
  assertReplicated,
  batchNormForward,
  batchNormInfer,
  broadcastState,
  convertSyncBatchNorm,
  initBatchNorm,
  initLayer,
  initLazyLayer,
  materializeLayer,
  type Momentum,
  momentumAt,
  referenceDevice,
  resetRunningStats,
  runRanks,
  stateFromHost,
  stateToHost,
  tensor,
  toArray,
} from "../mod.ts";
import { fromFlax, fromKeras, toFlax, toKeras } from "../lib/checkpoint.ts";
import { throwsLike } from "./kit.ts";

const device = referenceDevice();
const share = fc.double({ min: 0, max: 1, noNaN: true });

Deno.test("momentumAt() is each rule's formula", () => {
  assert.deepEqual([1, 2, 4].map((t) => momentumAt(null, t)), [1, 1 / 2, 1 / 4]);
  const step = { rule: "step", value: 0.5, factor: 0.5, every: 2 } as const;
  assert.deepEqual([1, 2, 3, 4, 5].map((t) => momentumAt(step, t)), [0.5, 0.5, 0.25, 0.25, 0.125]);
  const cosine = { rule: "cosine", from: 1, to: 0, steps: 2 } as const;
  assert.deepEqual([1, 3, 9].map((t) => momentumAt(cosine, t)), [1, 0, 0]);
  assert(Math.abs(momentumAt(cosine, 2) - 0.5) < 1e-15);
  assert.equal(momentumAt({ rule: "constant", value: 0.3 }, 7), 0.3);
});

Deno.test("a zero-debiased average is Adam's: from 0, divided by 1 - (1 - f)^t", () => {
  const value = fc.double({ min: 1e-3, max: 1, noNaN: true });
  fc.assert(fc.property(value, fc.array(share, { minLength: 1, maxLength: 20 }), (value, seen) => {
    let [debiased, raw] = [123, 0];
    seen.forEach((x, i) => {
      const f = momentumAt({ rule: "zeroDebiased", value }, i + 1);
      debiased = (1 - f) * debiased + f * x;
      raw = (1 - value) * raw + value * x;
      assert(Math.abs(debiased - raw / (1 - (1 - value) ** (i + 1))) < 1e-10);
    });
  }));
});

Deno.test("a rule and a biased variance survive the host, JSON, conversion, reset, and other ranks", async () => {
  const momentum = { rule: "cosine", from: 0.5, to: 0.01, steps: 100 } as const;
  const options = { momentum, runningVariance: "biased" } as const;
  const state = initBatchNorm(device, 2, options);
  const host = structuredClone(await stateToHost(device, state));
  const back = await stateToHost(device, stateFromHost(device, host));
  for (const { momentum: rule, runningVariance } of [host, back]) {
    assert.deepEqual({ momentum: rule, runningVariance }, options);
  }
  assert.deepEqual(JSON.parse(JSON.stringify(momentum)), momentum);
  const model = { norm: initLayer(device, "batchNorm1d", 2, options) };
  const fresh = resetRunningStats(device, convertSyncBatchNorm(model, {}));
  assert.deepEqual(fresh.norm.state.momentum, momentum);
  assert.equal(fresh.norm.state.runningVariance, "biased");
  const lazy = structuredClone(initLazyLayer("batchNorm1d", options));
  const { state: made } = materializeLayer(device, lazy, 2);
  assert.deepEqual([made.momentum, made.runningVariance], [momentum, "biased"]);
  await runRanks(2, async (group) => {
    const own = await broadcastState(fresh, { device, group });
    assert.deepEqual(own.norm.state.momentum, momentum);
    await assertReplicated(own, { device, group });
  });
});

Deno.test("a state of Keras or Flax that keeps the biased variance trains and evaluates as theirs do", async () => {
  const [mean, variance] = [Float32Array.of(1), Float32Array.of(4)];
  const options = { count: null, momentum: 0.75, epsilon: 0, runningVariance: "biased" } as const;
  const keras = fromKeras({ moving_mean: mean, moving_variance: variance }, options);
  const flax = fromFlax({ mean, var: variance }, options);
  for (const imported of [keras, flax]) {
    const state = stateFromHost(device, imported.state);
    const y = batchNormInfer(state, tensor(device, [5], [1, 1]), { device });
    assert.deepEqual(await toArray(device, y), Float32Array.of(2));
    // Mean 4, biased variance 4: 0.75 * 1 + 0.25 * 4, 0.75 * 4 + 0.25 * 4.
    const next = batchNormForward(state, tensor(device, [2, 6], [2, 1]), { device }).state;
    const host = await stateToHost(device, next);
    assert.deepEqual(host.runningMean, Float32Array.of(1.75));
    assert.deepEqual(host.runningVar, Float32Array.of(4));
    assert.deepEqual(toKeras(host, { count: null }).weights.moving_variance, host.runningVar);
    assert.deepEqual(toFlax(host, { count: null }).variables.var, host.runningVar);
    throwsLike(() => toKeras(host, { count: 2 }), RangeError, /count must be null/);
  }
});

Deno.test("rules that are none are refused in a sentence", () => {
  const refuse = (momentum: unknown, type: ErrorConstructor, text: RegExp) =>
    throwsLike(() => initBatchNorm(device, 1, { momentum: momentum as Momentum }), type, text);
  refuse({ rule: "linear" }, TypeError, /rule of momentum must be "constant", .*"linear"/);
  refuse({ rule: "constant" }, RangeError, /value of momentum must be in \[0, 1\]/);
  refuse({ rule: "step", value: 1, factor: 1, every: 0 }, RangeError, /every of momentum/);
  refuse({ rule: "cosine", from: 1, to: 2, steps: 3 }, RangeError, /to of momentum/);
  refuse({ rule: "constant", value: 1, every: 2 }, TypeError, /may have value.*"every"/);
  refuse({ rule: "zeroDebiased", value: 0 }, RangeError, /must be > 0/);
  refuse(2, RangeError, /record with a rule/);
  throwsLike(
    () => initBatchNorm(device, 1, { runningVariance: "both" as "biased" }),
    TypeError,
    /runningVariance must be "unbiased", "biased" or left out/,
  );
});
