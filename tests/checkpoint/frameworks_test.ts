/** What layers of Keras and Flax compute themselves, of tests/checkpoint/golden/frameworks.json, against ours. */

import assert from "node:assert/strict";
import {
  addScaled,
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  type BatchNormState,
  referenceDevice,
  stateFromHost,
  stateToHost,
  tensor,
  toArray,
  withParameters,
} from "../../mod.ts";
import type { ImportBatchNormOptions } from "../../lib/checkpoint.ts";
import { assertClose, EPSILON } from "../kit.ts";
import type { Convention, Named } from "./conventions.ts";
import {
  byChannel,
  conventionOf,
  type Layer,
  LAYERS,
  logical,
  RATE,
  settingsOf,
  vectorsOf,
} from "./frameworks.ts";

const ULP = EPSILON.float32;

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/**
 * How far one step in float32 may take each vector of a layer from ours, per channel and under the layer's own names.
 *
 * A sum of n float32 terms is off by (n - 1) / 2 ulps of their sizes, every other operation by half an ulp of its result;
 * the statistics add a weight, a product and a sum. The fast variance E[x^2] - E[x]^2 has the errors of a mean thrice, and
 * they are those of E[x^2], however small the variance is. Ours is rounded once in each of: the way in, the step, the way
 * out. Gradients: xhat = (x - mean) / sqrt(variance + eps) inherits the errors of mean and variance, the latter halved by
 * the root.
 */
function tolerances(
  { names: [weight, bias, mean, variance] }: Convention,
  layer: Layer,
  step: Layer["steps"][number],
  before: Named,
): Readonly<Record<string, readonly number[]>> {
  const { momentum, epsilon, count: n, fastVariance } = layer;
  const dys = byChannel(layer, step.dy);
  const perChannel = byChannel(layer, step.x).map((x, c) => {
    const old = (name: string) => Math.abs(before[name]?.[c] ?? 0);
    const m = sum(x) / n;
    const v = sum(x.map((value) => (value - m) ** 2)) / n;
    const largest = Math.max(...x.map(Math.abs));
    const [size, ulps] = fastVariance
      ? [sum(x.map((value) => value ** 2)) / n, 1.5 * n + 2]
      : [v, 0.5 * n + 2];
    const invstd = 1 / Math.sqrt(v + epsilon);
    const xhat = Math.max(...x.map((value) => Math.abs(value - m) * invstd));
    const offXhat = (n + 2) * largest * invstd + (ulps * size / (v + epsilon) / 2 + 3) * xhat;
    const rateDy = RATE * sum(dys[c].map(Math.abs));
    const fresh = 1 - momentum;
    return {
      [weight]: ULP * (2 * old(weight) + rateDy * (offXhat + (n / 2 + 2) * xhat)),
      [bias]: ULP * (2 * old(bias) + rateDy * (n / 2 + 2)),
      [mean]: ULP * (2 * momentum * old(mean) + fresh * (n / 2 + 2) * largest),
      [variance]: ULP * (3 * momentum * old(variance) + fresh * (ulps + 3) * size),
    };
  });
  const names = [weight, bias, mean, variance];
  return Object.fromEntries(names.map((name) => [name, perChannel.map((off) => off[name])]));
}

/** Trains a layer as the framework did and calls back after every step. */
async function train(
  convention: Convention,
  layer: Layer,
  options: Pick<ImportBatchNormOptions, "count" | "runningVariance">,
  compare: (vectors: Named, step: number) => void,
): Promise<BatchNormState<Float32Array>> {
  const device = referenceDevice();
  const { state: first, format } = convention.read(vectorsOf(layer.before), {
    ...settingsOf(layer),
    ...options,
  });
  const { count } = options;
  const shape = logical(layer.shape, format);
  let state = stateFromHost(device, first);
  for (const [step, { x, dy }] of layer.steps.entries()) {
    const input = tensor(device, x, shape, { format });
    const forward = batchNormForward(state, input, { device });
    const { gradWeight, gradBias } = batchNormBackward(
      forward.saved,
      tensor(device, dy, shape, { format }),
      { device },
    );
    const { weight, bias } = forward.state;
    state = withParameters(forward.state, {
      weight: weight && addScaled(device, weight, gradWeight!, -RATE),
      bias: bias && addScaled(device, bias, gradBias!, -RATE),
    });
    const host = await stateToHost(device, state);
    compare(convention.write(host, { count, format }).vectors, step);
  }
  return await stateToHost(device, state);
}

for (const [index, layer] of LAYERS.entries()) {
  const convention = conventionOf(layer);
  const { name, names, present, read, write } = convention;
  const what = `${layer.kind}, layer ${index}, shape (${layer.shape}), axis ${layer.axis}`;

  const trained = async (options: Pick<ImportBatchNormOptions, "count" | "runningVariance">) => {
    const allowed: Record<string, readonly number[]> = {};
    let before = vectorsOf(layer.before);
    const state = await train(convention, layer, options, (vectors, at) => {
      const added = tolerances(convention, layer, layer.steps[at], before);
      const expected = vectorsOf(layer.steps[at].after);
      for (const own of names) {
        // Errors of earlier steps stay, and never grow: the weight of an old value is at most 1.
        const absolute = added[own].map((off, c) => off + (allowed[own]?.[c] ?? 0));
        allowed[own] = absolute;
        const vector = vectors[own];
        assert.equal(vector === null, !(own in expected));
        if (vector === null) continue;
        assertClose(vector, expected[own]!, { absolute, relative: 0 }, `${own}, step ${at}`);
      }
      before = expected;
    });
    return { state, allowed };
  };

  Deno.test(`from${name}(): training goes on as in ${what}`, async () => {
    await trained({ count: layer.count });
  });

  Deno.test(`from${name}(): a biased variance trains and then evaluates as ${what}`, async () => {
    const { state, allowed } = await trained({ count: null, runningVariance: "biased" });
    const { format } = read(vectorsOf(layer.before), { ...settingsOf(layer), count: null });
    const device = referenceDevice();
    const { x, y } = layer.evaluation;
    const input = tensor(device, x, logical(layer.shape, format), { format });
    const output = batchNormInfer(stateFromHost(device, state), input, { device });
    const values = byChannel(layer, [...await toArray(device, output)]);
    const inputs = byChannel(layer, x);
    const { weight, bias, runningMean, runningVar, eps } = state;
    const [offWeight, offBias, offMean, offVariance] = names.map((own) => allowed[own]);
    byChannel(layer, y).forEach((expected, c) => {
      const invstd = 1 / Math.sqrt(runningVar![c] + eps);
      const scale = Math.abs(weight?.[c] ?? 1) * invstd;
      // What training may be off by, of first order; then evaluation as below.
      const absolute = inputs[c].map((value) => {
        const away = Math.abs(value - runningMean![c]);
        const trained = away * invstd * (weight ? offWeight[c] : 0) + (bias ? offBias[c] : 0) +
          scale * (offMean[c] + away * offVariance[c] * invstd ** 2 / 2);
        const sizes = scale * (Math.abs(value) + Math.abs(runningMean![c]));
        return trained + ULP * (5 * sizes + 2 * Math.abs(bias?.[c] ?? 0));
      });
      assertClose(values[c], expected, { absolute, relative: 0 }, `y of channel ${c}`);
    });
  });

  Deno.test(`from${name}(): without its count the variance is not that of ${what}`, async () => {
    const own = names[3];
    const [{ after }] = layer.steps;
    const absolute = tolerances(convention, layer, layer.steps[0], vectorsOf(layer.before))[own];
    await train(convention, layer, { count: null }, (vectors, at) => {
      if (at > 0) return;
      // Shows that the tolerance above can tell the biased variance from the unbiased one.
      vectors[own]!.forEach((value, c) =>
        assert(Math.abs(value - after[own][c]) > 2 * absolute[c])
      );
    });
  });

  Deno.test(`from${name}(): evaluation without a count is that of ${what}`, async () => {
    const device = referenceDevice();
    const { x, y } = layer.evaluation;
    const evaluate = async (count: number | null) => {
      const { state, format } = read(vectorsOf(layer.steps.at(-1)!.after), {
        ...settingsOf(layer),
        count,
      });
      const input = tensor(device, x, logical(layer.shape, format), { format });
      const output = batchNormInfer(stateFromHost(device, state), input, { device });
      return { state, values: byChannel(layer, [...await toArray(device, output)]) };
    };
    const { state, values } = await evaluate(null);
    const { weight, bias, runningMean, runningVar, eps } = state;
    const inputs = byChannel(layer, x);
    const counted = (await evaluate(layer.count)).values;
    byChannel(layer, y).forEach((expected, c) => {
      const scale = Math.abs(weight?.[c] ?? 1) / Math.sqrt(runningVar![c] + eps);
      // The scale takes four operations, one of them a root of another precision; then a product and two sums, of which
      // Keras on JAX has x * scale and mean * scale as terms. Ours rounds once.
      const absolute = inputs[c].map((value) =>
        ULP *
        (5 * scale * (Math.abs(value) + Math.abs(runningMean![c])) + 2 * Math.abs(bias?.[c] ?? 0))
      );
      assertClose(values[c], expected, { absolute, relative: 0 }, `y of channel ${c}`);
      // Either evaluation or training, as the documentation says: the unbiased variance gives other outputs.
      assert.throws(() => assertClose(counted[c], expected, { absolute, relative: 0 }, ""));
    });
  });

  Deno.test(`to${name}() gives the weights and the settings of ${what} back`, () => {
    const vectors = vectorsOf(layer.before);
    const { state, format } = read(vectors, { ...settingsOf(layer), count: null });
    const { vectors: back, config } = write(state, { count: null, format });
    for (const own of names) assert.deepEqual(back[own], vectors[own] ?? null);
    const last = [-1, layer.shape.length - 1].includes(layer.axis);
    assert.deepEqual(config, {
      momentum: layer.momentum,
      epsilon: layer.epsilon,
      axis: last ? -1 : 1,
      [present[0]]: names[0] in vectors,
      [present[1]]: names[1] in vectors,
    });
  });
}
