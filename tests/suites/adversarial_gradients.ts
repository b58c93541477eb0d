/** Special values of gradOutput, in training and evaluation, and gradients that are masked. */

import assert from "node:assert/strict";
import {
  type Backward,
  batchNormBackward,
  batchNormForward,
  batchNormInferBackward,
  type Device,
  initBatchNorm,
  tensor,
  toArray,
} from "../../mod.ts";
import { type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import {
  assertValues,
  LEAST,
  LEAST_NORMAL,
  pack,
  rounded,
  train,
  unpack,
} from "./adversarial_values.ts";

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

/** What every channel holds; its mean is no element, so that no infinity is multiplied by 0. */
const BATCH = { what: "1 to 6", x: [1, 2, 3, 4, 5, 6], mean: 3.5, variance: 35 / 12 };

/** Gradients of the output, six per channel. */
const GRADIENTS: Readonly<Record<string, readonly number[]>> = {
  "NaN": [1, nan, 2, 3, 4, 5],
  "ordinary": [1, 2, -1, 0, 3, -2],
  "one infinity": [1, inf, 2, 3, 4, 5],
  "minus infinity": [1, 2, 0, 3, -inf, 5],
  "both infinities": [inf, -inf, 0, 0, 0, 0],
  "huge": [3e38, 3e38, 3e38, 3e38, 0, 0].map(Math.fround),
  "huge of both signs": [3e38, -3e38, 3e38, -3e38, 3e38, -3e38].map(Math.fround),
  "subnormal": [1e-40, 0, -2e-40, 0, 0, 0].map(Math.fround),
  "-0": [-0, -0, -0, -0, -0, -0],
};

/** Registers the tests of special gradients for a device. */
export function gradientSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const rows = Object.entries(GRADIENTS);
  const affine = { weight: 1, bias: 0, eps: 0 };
  /** Sums of a device that may assume that there is no infinity must not come to one. */
  const promised = (dy: readonly number[]) =>
    kit.nonFinite || Number.isFinite(Math.fround(100 * Math.max(...dy.map(Math.abs))));
  const state = (device: Device<A>) => initBatchNorm(device, rows.length, { eps: 0 });
  const of = (device: Device<A>, channels: readonly (readonly number[])[]) =>
    tensor(device, pack(channels, "channelsLast"), [2, rows.length, 3], {
      format: "channelsLast",
    });
  const read = async (device: Device<A>, { gradInput, gradWeight, gradBias }: Backward<A>) => ({
    dx: unpack(await toArray(device, gradInput), "channelsLast"),
    gradWeight: await device.download(gradWeight!),
    gradBias: await device.download(gradBias!),
  });

  test("special gradients in training", async (device) => {
    const input = of(device, rows.map(() => BATCH.x));
    const { saved } = batchNormForward(state(device), input, { device });
    const dy = of(device, rows.map(([, values]) => values));
    const got = await read(device, batchNormBackward(saved, dy, { device }));
    rows.forEach(([what, values], c) => {
      if (!promised(values)) return;
      const { dx, gradWeight, gradBias } = train(BATCH, values, affine, kit);
      // The sums of an infinity are in every gradient; differences of infinities are NaN, by the order of subtraction.
      if (values.every(Number.isFinite)) assertValues(got.dx[c], dx, `${what}: gradInput`);
      else assert(!got.dx[c].some(Number.isFinite), `${what}: gradInput ${got.dx[c]}`);
      assertValues([got.gradWeight[c]], gradWeight, `${what}: gradWeight`);
      assertValues([got.gradBias[c]], gradBias, `${what}: gradBias`);
    });
  });

  test("special gradients in evaluation stay at their element", async (device) => {
    const input = of(device, rows.map(() => BATCH.x));
    const dy = of(device, rows.map(([, values]) => values));
    const back = batchNormInferBackward(state(device), input, dy, { device });
    const got = await read(device, back);
    // Running mean 0 and variance 1.
    const unit = { ...BATCH, mean: 0, variance: 1 };
    const least = kit.subnormals ? LEAST : LEAST_NORMAL;
    rows.forEach(([what, values], c) => {
      const slack = values.map((value) => kit.ulps * EPSILON.float32 * Math.abs(value) + least);
      if (kit.nonFinite) assertValues(got.dx[c], { values, slack }, `${what}: gradInput`);
      else {
        const finite = <T>(all: readonly T[]) => all.filter((_, i) => Number.isFinite(values[i]));
        const expected = { values: finite(values), slack: finite(slack) };
        assertValues(finite(got.dx[c]), expected, `${what}: gradInput`);
      }
      if (!promised(values)) return;
      const { gradWeight, gradBias } = train(unit, values, affine, kit);
      assertValues([got.gradWeight[c]], gradWeight, `${what}: gradWeight`);
      assertValues([got.gradBias[c]], gradBias, `${what}: gradBias`);
    });
  });

  test("steep gradients of narrow batches are finite", async (device) => {
    // s^2 * dy is 3e41, which float32 does not hold; gradInput is about s * dy, 6e24.
    const batch = { what: "narrow", ...rounded(BATCH.x, 1e-17) };
    const dy = GRADIENTS.ordinary.map((value) => 1e8 * value);
    const one = initBatchNorm(device, 1, { eps: 0 });
    const { saved } = batchNormForward(one, tensor(device, batch.x, [6, 1]), { device });
    const back = batchNormBackward(saved, tensor(device, dy, [6, 1]), { device });
    const { dx, gradWeight } = train(batch, dy, affine, kit);
    assertValues(await toArray(device, back.gradInput), dx, "gradInput");
    assertValues(await device.download(back.gradWeight!), gradWeight, "gradWeight");
  });

  if (!kit.nonFinite) return;

  test("what is masked does not count, whatever x is there", async (device) => {
    const effects = { device };
    const one = initBatchNorm(device, 1, { eps: 0 });
    const x = tensor(device, [-inf, 1, inf, 2, nan, -inf], [6, 1]);
    const sums = async (dy: readonly number[], activation?: "relu") => {
      const gradOutput = tensor(device, dy, [6, 1]);
      const back = batchNormInferBackward(one, x, gradOutput, effects, { activation });
      const { gradInput, gradWeight, gradBias } = back;
      const parameters = await Promise.all([gradWeight!, gradBias!].map(device.download));
      return [...await toArray(device, gradInput), ...parameters.flatMap((p) => [...p])];
    };
    // gradInput, gradWeight, gradBias, exact for running mean 0, variance 1, eps 0.
    assert.deepEqual(await sums([0, 3, 0, 5, 0, 0]), [0, 3, 0, 5, 0, 0, 13, 8]);
    assert.deepEqual((await sums([-0, 3, -0, 5, -0, -0])).slice(6), [13, 8]);
    assert.deepEqual(await sums([0, 0, 2, 0, 0, 0]), [0, 0, 2, 0, 0, 0, inf, 2]);
    assert.deepEqual(await sums([0, 0, 0, 0, 2, 0]), [0, 0, 0, 0, 2, 0, nan, 2]);
    // An output of -infinity or NaN closes the gate, one of infinity opens it.
    assert.deepEqual(await sums([7, 3, 0, 5, 7, nan], "relu"), [0, 3, 0, 5, 0, 0, 13, 8]);
    assert.deepEqual(await sums([7, 3, 2, 5, 7, 7], "relu"), [0, 3, 2, 5, 0, 0, inf, 10]);
  });
}
