/** Special values element by element: ReLU, gate, sums, the epilogue, and float16. */

import assert from "node:assert/strict";
import {
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type Device,
  initBatchNorm,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { rectifiedBy } from "../../lib/activation.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";
import { LEAST, LEAST_NORMAL, MAX } from "./adversarial_values.ts";

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

/** Registers the tests of special elements for a device. */
export function elementSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  /** What a device need not tell from +0 is +0; what it may assume not to be there is left out. */
  const seen = (values: ArrayLike<number>) =>
    Array.from(values).map((value) =>
      kit.subnormals || Math.abs(value) >= LEAST_NORMAL ? value : 0
    );
  const given = kit.nonFinite ? [nan, inf, -inf] : [];
  const equal = (actual: ArrayLike<number>, expected: readonly number[], what: string) =>
    assert.deepEqual(seen(actual), seen(expected.map(Math.fround)), what);

  test("special values that are uploaded come back as they are", async (device) => {
    const values = [nan, inf, -inf, -0, 0, LEAST, -LEAST, MAX, LEAST_NORMAL];
    const array = device.upload(Float32Array.from(values));
    assert.deepEqual([...await device.download(array)], values);
  });

  test("ReLU, gates and sums of special values", async (device) => {
    const values = [0, -0, LEAST, -LEAST, LEAST_NORMAL, MAX, -MAX, 1, ...given];
    const vector = device.upload(Float32Array.from(values));
    const rectified = values.map((value) => value <= 0 ? 0 : value);
    const n = values.length;
    const column = (data: readonly number[]) => tensor(device, data, [n, 1]);
    // With mean 0, variance 1 and nothing else, passes change nothing but what an activation does.
    const [mean, variance] = [0, 1].map((value) => device.upload(Float32Array.of(value)));
    const plain = {
      statistics: { source: "running", mean, variance } as const,
      affine: { weight: null, bias: null, eps: 0 },
    };
    const relu = device.normalize({ ...plain, input: column(values), activation: "relu" });
    equal(await device.download(relu), rectified, "relu");

    const gate = (gradOutput: Tensor<A>, output: Tensor<A>): A => {
      const gate = rectifiedBy("relu", output);
      const pass = { ...plain, input: column(values), gradOutput, output: gate };
      const local = device.gradientSums(pass);
      return device.gradients({ ...pass, sums: { local, total: null } }).gradInput;
    };
    const ones = values.map((_, i) => i + 1);
    const closed = gate(column(ones), column(rectified));
    const open = rectified.map((value, i) => value > 0 ? i + 1 : 0);
    // Whether an output that is subnormal counts as positive is the device's own.
    const passed = [...await device.download(closed)];
    if (!kit.subnormals) passed[2] = open[2];
    equal(passed, open, "gate");
    const through = gate(column(values), column(values.map(() => 1)));
    equal(await device.download(through), values, "open gate");

    const sums: readonly (readonly [number, number, number])[] = [
      [-0, -0, -0],
      [0, -0, 0],
      [1, -1, 0],
      [LEAST, LEAST, 2 * LEAST],
      [LEAST_NORMAL, -LEAST, LEAST_NORMAL - LEAST],
      [1, LEAST, 1],
      [MAX, -MAX, 0],
      ...(kit.nonFinite
        ? [[MAX, MAX, inf], [inf, -inf, nan], [inf, 1, inf], [nan, 1, nan]] as const
        : []),
    ];
    const [a, b] = [0, 1].map((side) => device.upload(Float32Array.from(sums, (row) => row[side])));
    const sum = [...await device.download(device.addScaled({ x: a, y: b, scale: 1 }))];
    const expected = sums.map(([, , total]) => total);
    // A subnormal term may be taken for 0 before the sum.
    if (!kit.subnormals) assertClose([sum[4]], [expected[4]], { absolute: LEAST, relative: 0 }, "");
    sum[4] = expected[4];
    equal(sum, expected, "sum");
    if (kit.nonFinite) {
      const nothing = await device.download(device.addScaled({ x: vector, y: vector, scale: 0 }));
      equal(nothing, values.map((value) => value + 0 * value), "0 times infinity is NaN");
    }
  });

  test("residual and ReLU of special values", async (device) => {
    // Evaluation with mean 0, variance 1 and eps 0 is x itself, and with a bias of -0 so is -0.
    const bias = device.upload(Float32Array.of(-0));
    const state = { ...initBatchNorm(device, 1, { eps: 0 }), bias };
    const rows: readonly (readonly [number, number])[] = [
      [-0, -0],
      [1, -1],
      [2, -1],
      [-1, 0],
      [LEAST_NORMAL, LEAST],
      ...(kit.nonFinite
        ? [[inf, -inf], [inf, 1], [1, -inf], [nan, 1], [1, nan], [-inf, -1], [MAX, MAX]] as const
        : []),
    ];
    const side = (of: 0 | 1) => tensor(device, rows.map((row) => row[of]), [rows.length, 1]);
    const options = { residual: side(1), activation: "relu" } as const;
    const output = await toArray(device, batchNormInfer(state, side(0), { device }, options));
    const expected = rows.map(([x, r]) => x + r <= 0 ? 0 : Math.fround(x + r));
    const close = { absolute: kit.subnormals ? 0 : LEAST_NORMAL, relative: 2 * EPSILON.float32 };
    rows.forEach(([x, r], i) => {
      const what = `${x} + ${r}`;
      if (Number.isFinite(expected[i])) assertClose([output[i]], [expected[i]], close, what);
      else assert.equal(output[i], expected[i], what);
      if (expected[i] === 0 && kit.subnormals) assert(Object.is(output[i], 0), `${what} is +0`);
    });
    const gradOutput = tensor(device, rows.map((_, i) => i + 1), [rows.length, 1]);
    const back = batchNormInferBackward(state, side(0), gradOutput, { device }, options);
    const gates = expected.map((y, i) => y > 0 ? i + 1 : 0);
    assert.deepEqual([...await toArray(device, back.gradResidual!)], gates);
  });

  test("float16: overflow, subnormal numbers and -0", async (device) => {
    if (!device.info.float16) {
      assert.throws(() => device.upload(Float32Array.of(1), "float16"), /float16/);
      return;
    }
    // 2^-24 and 2^-14 are the least subnormal and normal float16; from 65520 on rounding gives infinity.
    const values = [2 ** -24, 3 * 2 ** -24, 2 ** -14, 65504, 1, -0];
    const shape = [values.length, 1];
    const of = (data: readonly number[]) => tensor(device, data, shape, { dtype: "float16" });
    const flushed = (all: ArrayLike<number>) =>
      Array.from(all).map((v) => kit.subnormals || Math.abs(v) >= 2 ** -14 ? v : 0);
    const same = (actual: ArrayLike<number>, expected: readonly number[], what: string) =>
      assert.deepEqual(flushed(actual), flushed(expected), what);
    same(await toArray(device, of(values)), values, "upload");
    const evaluate = async (weight: number, x: Tensor<A>) => {
      const state = { ...initBatchNorm(device, 1, { eps: 0 }), bias: null };
      const scaled = { ...state, weight: device.upload(Float32Array.of(weight)) };
      const { gradInput } = batchNormInferBackward(scaled, x, x, { device });
      const y = await toArray(device, batchNormInfer(scaled, x, { device }));
      return [y, await toArray(device, gradInput)];
    };
    const unit = initBatchNorm(device, 1, { eps: 0, affine: false });
    const relu = batchNormInfer(unit, of(values), { device }, { activation: "relu" });
    same(await toArray(device, relu), [...values.slice(0, 5), 0], "relu");
    // With mean 0 and variance 1, y = weight * x, and gradInput = weight * dy.
    for (const weight of [1, 0.5, -(2 ** -9)]) {
      const expected = values.map((value) => Float16Array.of(value * weight)[0]);
      for (const result of await evaluate(weight, of(values))) {
        // The sign of 0 is the device's own where a mean is subtracted and an offset added.
        assertClose(
          flushed(result),
          flushed(expected),
          { absolute: kit.subnormals ? 0 : 2 ** -14, relative: 0 },
          `weight ${weight}`,
        );
      }
    }
    if (!kit.nonFinite) return;
    const large = [65504, 32768, -40000, nan, inf, -inf];
    for (const result of await evaluate(2, of(large))) {
      assert.deepEqual([...result], [inf, inf, -inf, nan, inf, -inf], "overflow");
    }
    assert.deepEqual([...await toArray(device, of([65519, 65520, -1e6, nan, inf, 1]))], [
      ...[65504, inf, -inf, nan, inf, 1],
    ]);
    await statistics16(device, kit.ulps);
  });
}

/** Batches of float16 at both ends of its range, whose statistics float16 does not hold. */
async function statistics16<A>(device: Device<A>, ulps: number): Promise<void> {
  const pairs = [[65504, -65504], [2 ** -24, -(2 ** -24)], [65504, 65504], [2 ** -24, 2 ** -24]];
  const input = tensor(device, [0, 1].flatMap((n) => pairs.map((pair) => pair[n])), [2, 4], {
    dtype: "float16",
  });
  const state = initBatchNorm(device, 4, { eps: 0, momentum: 1 });
  const forward = batchNormForward(state, input, { device });
  const y = await toArray(device, forward.output);
  assert.deepEqual([...y].map((value) => value + 0), [1, 1, 0, 0, -1, -1, 0, 0]);
  const variance = await device.download(forward.state.runningVar!);
  const expected = [2 * 65504 ** 2, 2 * 2 ** -48, 0, 0];
  const close = { absolute: 0, relative: ulps * EPSILON.float32 };
  assertClose(variance, expected, close, "unbiased variance");
}
