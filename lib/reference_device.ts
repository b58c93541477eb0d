/**
 * The reference device: the readable specification that every other device is compared with, on the CPU of any
 * JavaScript runtime.
 *
 * @module
 */

import type {
  Affine,
  Device,
  Epilogue,
  FusedGradientArrays,
  GradientSums,
  Prologue,
  Statistics,
} from "./device.ts";
import { DeviceError } from "./errors.ts";
import * as kernels from "./reference_kernels.ts";
import type { ArrayInfo, DType, Format, Tensor } from "./tensor.ts";

/** An array of a {@linkcode referenceDevice}. Opaque: read it with the device's `download`. */
export interface ReferenceArray {
  /** Sets it apart from the arrays of other kinds of device, for the type checker. */
  readonly device: "reference";
}

type Input = Tensor<ReferenceArray>;

// Nothing here is ever written over an argument.
const NO_EPILOGUE = { residual: null, relu: false, overwrite: false };
const NO_PROLOGUE = { output: null, residualFormat: null, overwrite: false };

/**
 * Makes a device that computes with plain loops in float64 and stores float32 or float16.
 *
 * Needs nothing from its surroundings. float16 needs a runtime with `Float16Array`; `info.float16` says so. Arrays of
 * one reference device cannot be used on another.
 *
 * @returns a frozen device
 *
 * @example
 * ```ts
 * import { referenceDevice } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const array = device.upload(Float32Array.of(1, 2, 3));
 * console.assert(device.describe(array).length === 3);
 * device.free(array);
 * ```
 */
export function referenceDevice(): Device<ReferenceArray> {
  const store = createStore();
  const { own, read, readWire, allocate } = store;
  const orNull = <T, V>(value: T | null, to: (value: T) => V) => value === null ? null : to(value);
  const view = (tensor: Input) => kernels.view(read(tensor.data), tensor.shape, tensor.format);
  const like = (tensor: Input) => allocate(read(tensor.data).length, tensor.dtype);
  const channels = (statistics: Statistics<ReferenceArray>): kernels.ChannelStatistics =>
    statistics.source === "batch"
      ? kernels.statisticsOf(readWire(statistics.moments))
      : { count: 0, mean: read(statistics.mean), variance: read(statistics.variance) };

  const normalize = (
    input: Input,
    statistics: Statistics<ReferenceArray>,
    { weight, bias, eps }: Affine<ReferenceArray>,
    { residual, relu }: Epilogue<ReferenceArray> = NO_EPILOGUE,
  ): ReferenceArray => {
    const affine = { weight: orNull(weight, read), bias: orNull(bias, read), eps };
    const output = like(input);
    const added = orNull(residual, view);
    kernels.normalize(view(input), channels(statistics), affine, added, relu, output);
    return own(output);
  };

  const gradientSums = (
    input: Input,
    gradOutput: Input,
    statistics: Statistics<ReferenceArray>,
    { output }: Prologue<ReferenceArray> = NO_PROLOGUE,
  ): ReferenceArray =>
    own(kernels.gradientSums(
      view(input),
      view(gradOutput),
      channels(statistics),
      orNull(output, view),
    ));

  const gate = (gradOutput: Input, output: Input | null, format: Format): ReferenceArray => {
    const result = like(gradOutput);
    const to = kernels.view(result, gradOutput.shape, format);
    kernels.gate(view(gradOutput), orNull(output, view), to);
    return own(result);
  };

  const gradients = (
    input: Input,
    gradOutput: Input,
    statistics: Statistics<ReferenceArray>,
    { local, total }: GradientSums<ReferenceArray>,
    { weight, bias, eps }: Affine<ReferenceArray>,
    { output, residualFormat }: Prologue<ReferenceArray> = NO_PROLOGUE,
  ): FusedGradientArrays<ReferenceArray> => {
    const resolved = channels(statistics);
    const scale = { weight: orNull(weight, read), eps };
    const sums = orNull(total, readWire);
    const passed = orNull(output, view);
    const gradInput = like(input);
    kernels.gradInput(view(input), view(gradOutput), resolved, scale, sums, passed, gradInput);
    const { gradWeight, gradBias } = kernels.gradParameters(readWire(local), resolved, eps);
    return {
      gradInput: own(gradInput),
      gradWeight: orNull(weight, () => own(gradWeight)),
      gradBias: orNull(bias, () => own(gradBias)),
      gradResidual: orNull(residualFormat, (format) => gate(gradOutput, output, format)),
    };
  };

  const device: Device<ReferenceArray> = {
    info: Object.freeze({
      name: "reference (float64 loops on the CPU)",
      float16: store.float16,
    }),

    upload: (values, dtype = "float32") => {
      const copy = allocate(values.length, dtype);
      copy.set(values);
      return own(copy);
    },
    download: (array) => promised(() => Float32Array.from(read(array))),
    downloadAll: (arrays) =>
      promised(() => {
        const parts = arrays.map(read);
        const all = new Float32Array(parts.reduce((total, { length }) => total + length, 0));
        parts.reduce((at, values) => (all.set(values, at), at + values.length), 0);
        return all;
      }),
    free: store.free,
    owns: store.owns,
    describe: store.describe,

    moments: (input) => own(kernels.moments(view(input))),
    momentsToWire: (moments) => promised(() => readWire(moments).slice()),
    momentsFromWire: (wire) => own(wire.slice()),
    normalize,
    updateRunningStats: (running, moments, factor) => {
      const old = { mean: read(running.runningMean), variance: read(running.runningVar) };
      const mean = new Float32Array(old.mean.length);
      const variance = new Float32Array(old.mean.length);
      kernels.updateRunningStats(readWire(moments), factor, old, { mean, variance });
      return { runningMean: own(mean), runningVar: own(variance) };
    },
    gradientSums,
    sumsToWire: (sums) => promised(() => readWire(sums).slice()),
    sumsFromWire: (wire) => own(wire.slice()),
    gradients,

    addScaled: (x, y, scale) => {
      const [augend, addend] = [read(x), read(y)];
      return own(augend.map((value, i) => value + scale * addend[i]));
    },
    relu: (x) => own(read(x).map((value) => value <= 0 ? 0 : value)),
    gate,

    fused: Object.freeze({ normalize, gradientSums, gradients }),
  };
  return Object.freeze(device);
}

/** Runs a body at once and gives its result, or its error, as a promise. */
function promised<T>(body: () => T): Promise<T> {
  return new Promise((resolve) => resolve(body()));
}

/** Handles and what stands behind them: a handle that leaves the map can never be read again. */
function createStore() {
  const live = new WeakMap<ReferenceArray, kernels.Values>();
  const freed = new WeakSet<ReferenceArray>();
  const float16 = typeof Float16Array === "function";

  const own = (values: kernels.Values): ReferenceArray => {
    const array: ReferenceArray = Object.freeze({ device: "reference" });
    live.set(array, values);
    return array;
  };
  const read = (array: ReferenceArray): kernels.Values => {
    const values = live.get(array);
    if (values !== undefined) return values;
    throw new TypeError(
      freed.has(array)
        ? "Cannot use the array as it was already freed"
        : "Cannot use the array as it must be one of this device: it is another device's, or none",
    );
  };
  /** Moments and gradient sums are kept as they travel. */
  const readWire = (array: ReferenceArray): Float64Array<ArrayBuffer> => {
    const values = read(array);
    if (values instanceof Float64Array) return values as Float64Array<ArrayBuffer>;
    throw new TypeError(
      "Cannot use the array as statistics: it holds the elements of a tensor or a vector",
    );
  };
  const allocate = (length: number, dtype: DType): Float32Array | Float16Array => {
    if (dtype === "float32") return new Float32Array(length);
    if (float16) return new Float16Array(length);
    throw new DeviceError(
      "Cannot make a float16 array as this runtime has no Float16Array: use float32 or a newer runtime",
      "unsupported",
    );
  };
  const describe = (array: ReferenceArray): ArrayInfo => {
    const values = read(array);
    const half = float16 && values instanceof Float16Array;
    return { length: values.length, dtype: half ? "float16" : "float32" };
  };
  const owns = (value: unknown): value is ReferenceArray => live.has(value as ReferenceArray);
  const free = (...arrays: ReferenceArray[]): void => {
    arrays.forEach(read);
    for (const array of arrays) {
      live.delete(array);
      freed.add(array);
    }
  };
  return { own, read, readWire, allocate, describe, owns, free, float16 };
}
