/** Batches for the Wasm device's tests: what is normalized, how it is asked for, and everything that comes of it. */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type BatchNormState,
  type Device,
  type DType,
  type Format,
  referenceDevice,
  region,
  stateFromHost,
  stateToHost,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { extents } from "../../lib/device_author.ts";
import { permute } from "../oracle.ts";
import { normalArray } from "../random.ts";

/** One batch and what is done with it. */
export interface Batch {
  readonly shape: readonly number[];
  readonly format: Format;
  readonly gradFormat: Format;
  readonly residual: Format | null;
  readonly relu: boolean;
  readonly scale: boolean;
  readonly bias: boolean;
  readonly update: boolean;
  readonly dtype: DType;
  readonly mean: number;
  readonly std: number;
  readonly seed: number;
}

/** The plainest one. */
export const PLAIN: Omit<Batch, "shape"> = {
  format: "channelsFirst",
  gradFormat: "channelsFirst",
  residual: null,
  relu: false,
  scale: true,
  bias: true,
  update: true,
  dtype: "float32",
  mean: 3,
  std: 1,
  seed: 1,
};

/** What a batch is made of, each in its own memory order and exact in its storage. */
export interface Numbers {
  readonly state: BatchNormState<Float32Array>;
  readonly x: Float32Array;
  readonly dy: Float32Array;
  readonly residual: Float32Array;
}

/** Everything that the local functions make of a batch. */
export interface Results {
  readonly tensors: Readonly<Record<string, Float32Array | null>>;
  readonly vectors: Readonly<Record<string, Float32Array | null>>;
}

/** Standard normal numbers; a prime many, so that they repeat at no period of a kernel's. */
export const POOL = normalArray(65_537, 20);

export function lengthOf({ shape }: Pick<Batch, "shape">): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/** Numbers of a batch; dy is 0 wherever an output before ReLU is so near to 0 that rounding decides its sign. */
export async function numbersOf(batch: Batch): Promise<Numbers> {
  const { shape, dtype, mean, std, seed, relu, scale, bias } = batch;
  const [length, channels] = [lengthOf(batch), shape[1]];
  const stored = (values: Float32Array) =>
    dtype === "float16" ? Float32Array.from(Float16Array.from(values)) : values;
  const drawn = (count: number, number: number) => {
    const values = new Float32Array(count);
    let from = (seed * 31 + number * 7919) % POOL.length;
    for (let at = 0; at < count; from = 0) {
      const next = POOL.subarray(from, from + count - at);
      values.set(next, at);
      at += next.length;
    }
    return values;
  };
  const x = stored(drawn(length, 1).map((value) => mean + std * value));
  const state = {
    numFeatures: channels,
    eps: 1e-5,
    momentum: 0.1,
    weight: scale ? drawn(channels, 2).map((value) => 1 + 0.5 * value) : null,
    bias: bias ? drawn(channels, 3) : null,
    runningMean: drawn(channels, 4).map((value) => mean + std * value),
    runningVar: drawn(channels, 5).map((value) => std * std * (0.5 + value * value)),
    numBatchesTracked: 0,
  };
  const [residual, dy] = [stored(drawn(length, 6)), stored(drawn(length, 7))];
  if (!relu) return { state, x, dy, residual };
  const near = dtype === "float16" ? 1e-2 : 1e-4;
  for (const output of await outputsOf(batch, { state, x, dy, residual })) {
    output.forEach((value, i) => {
      if (Math.abs(value) < near) dy[i] = 0;
    });
  }
  return { state, x, dy, residual };
}

/** Outputs of training and evaluation before ReLU, in gradOutput's memory order. */
async function outputsOf(batch: Batch, numbers: Numbers): Promise<Float32Array[]> {
  const device = referenceDevice();
  const { shape, dtype, format, gradFormat, residual } = batch;
  const put = (values: Float32Array, format: Format) =>
    tensor(device, values, shape, { dtype, format });
  const state = stateFromHost(device, numbers.state);
  const input = put(numbers.x, format);
  const options = residual ? { residual: put(numbers.residual, residual) } : {};
  const outputs = [
    batchNormForward(state, input, { device }, options).output,
    batchNormInfer(state, input, { device }, options),
  ];
  const { channels, inner } = extents(shape);
  return await Promise.all(outputs.map(async (output) => {
    const values = await toArray(device, output);
    return format === gradFormat ? values : permute(values, { channels, inner }, gradFormat);
  }));
}

/**
 * Runs a batch through forward, backward, evaluation and its backward, with and without donation, which must not change a
 * bit; tensors come back in the batch's own memory orders. Nothing stays on the device.
 */
export async function resultsOf<A>(
  device: Device<A>,
  batch: Batch,
  numbers: Numbers,
): Promise<Results> {
  const { shape, format, gradFormat, relu, dtype, update } = batch;
  return await region(device, async (d) => {
    const put = (values: Float32Array, format: Format): Tensor<A> =>
      tensor(d, values, shape, { dtype, format });
    const state = stateFromHost(d, numbers.state);
    const input = put(numbers.x, format);
    const gradient = () => put(numbers.dy, gradFormat);
    const options = {
      ...(relu && { activation: "relu" as const }),
      ...(batch.residual && { residual: put(numbers.residual, batch.residual) }),
    };
    const effects = { device: d };
    const donate = { donate: true };
    const forward = batchNormForward(state, input, effects, {
      ...options,
      updateRunningStats: update,
    });
    const back = batchNormBackward(forward.saved, gradient(), effects);
    const given = batchNormBackward(forward.saved, gradient(), effects, donate);
    const inferred = batchNormInfer(state, input, effects, options);
    const over = batchNormInfer(state, put(numbers.x, format), effects, { ...options, ...donate });
    const evaluated = batchNormInferBackward(state, input, gradient(), effects, options);
    const read = (value: Tensor<A> | null) => value ? toArray(d, value) : null;
    const vector = (value: A | null) => value ? d.download(value) : null;
    const same = async (actual: Tensor<A>, expected: Tensor<A>) => {
      const [a, b] = [await toArray(d, actual), await toArray(d, expected)];
      for (let i = 0; i < a.length; i++) {
        if (Object.is(a[i], b[i])) continue;
        assert.fail(`${JSON.stringify(batch)}: donation changes element ${i}`);
      }
    };
    await same(given.gradInput, back.gradInput);
    await same(over, inferred);
    const after = await stateToHost(d, forward.state);
    return {
      tensors: {
        y: await read(forward.output),
        dx: await read(back.gradInput),
        dresidual: await read(back.gradResidual ?? null),
        z: await read(inferred),
        dz: await read(evaluated.gradInput),
        dzresidual: await read(evaluated.gradResidual ?? null),
      },
      vectors: {
        dweight: await vector(back.gradWeight),
        dbias: await vector(back.gradBias),
        dzweight: await vector(evaluated.gradWeight),
        dzbias: await vector(evaluated.gradBias),
        runningMean: after.runningMean,
        runningVar: after.runningVar,
      },
    };
  });
}

/** Says where element (n, c, i) of a shape (N, C, inner) lies in a memory order. */
export function positions(
  shape: readonly number[],
  format: Format,
): (n: number, c: number, i: number) => number {
  const channels = shape[1];
  const inner = shape.slice(2).reduce((product, extent) => product * extent, 1);
  return format === "channelsFirst"
    ? (n, c, i) => (n * channels + c) * inner + i
    : (n, c, i) => (n * inner + i) * channels + c;
}
