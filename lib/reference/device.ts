/**
 * The reference device: the readable specification that every other device is compared with, on the CPU of any
 * JavaScript runtime.
 */

import { boundsOf, type Rectified } from "../activation.ts";
import type { Device, Directions, PassOption, Statistics } from "../device.ts";
import { checkOptions } from "../check_effects.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import * as exactly from "../exact/kernels.ts";
import * as exactTangents from "../exact/tangents.ts";
import { carryWire, EXACT_WIRES } from "../exact/wires.ts";
import { elements, extents, type Format, type Tensor } from "../tensor.ts";
import { formatOn, momentsWire, sumsWire, weightedMomentsWire, type WireFormat } from "../wire.ts";
import * as plain from "./kernels.ts";
import * as second from "./second.ts";
import { createStore, type ReferenceArray } from "./store.ts";

export type { ReferenceArray };

type Input = Tensor<ReferenceArray>;

const EXACT_PASSES: readonly PassOption[] = /* @__PURE__ */ Object.freeze<PassOption[]>(
  ["residual", "activation", "weights", "tangents"],
);
const PASSES: readonly PassOption[] = /* @__PURE__ */ Object.freeze(
  /* @__PURE__ */ EXACT_PASSES.concat("rectifier", "secondOrder", "arrange"),
);

/** Options of {@linkcode referenceDevice}. */
export interface ReferenceOptions {
  /**
   * Whether results have the same bits for any number of ranks, any partition of a batch, any order, engine and format, and those of a
   * Wasm device that is exact too: sums are taken without rounding, elements computed in float32. Weights are whole numbers up to 2^24, and
   * gradients of gradients left out. False by default.
   */
  readonly exact?: boolean;
}

/**
 * Makes a device that computes with plain loops in float64 and stores float32 or float16.
 *
 * Needs nothing from its surroundings. float16 needs a runtime with `Float16Array`; `info.float16` says so. Arrays of
 * one reference device cannot be used on another.
 *
 * @param options whether it is exact
 * @returns a frozen device
 * @throws TypeError for an option that there is not
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
export function referenceDevice(options: ReferenceOptions = {}): Device<ReferenceArray> {
  checkOptions(options, ["exact"], "make the device");
  checkOneOf(options.exact, SWITCH, "exact", "make the device");
  const exact = options.exact === true;
  const kernels = exact ? exactly : plain;
  const wires = exact ? EXACT_WIRES : undefined;
  const [ofMoments, ofWeighted, ofSums] = [momentsWire, weightedMomentsWire, sumsWire].map(
    (format) => formatOn({ wires }, format),
  );
  const store = createStore();
  const { handle: own, readWire, allocate } = store;
  const ownWire = (format: WireFormat, wire: Float64Array<ArrayBuffer>) => own({ format, wire });
  /** Elements of a tensor, checked against its shape. */
  const values = ({ data, shape, dtype }: Input) => store.read(data, elements(shape), dtype);
  const view = (tensor: Input) => plain.view(values(tensor), tensor.shape, tensor.format);
  const viewOrNull = (tensor: Input | undefined) => tensor === undefined ? null : view(tensor);
  const gateOf = (output: Rectified<ReferenceArray> | undefined) =>
    output ? { ...view(output), ...boundsOf(output.activation, output.dtype) } : null;
  const vector = (array: ReferenceArray, channels: number) =>
    store.read(array, channels, "float32");
  const vectorOrNull = (array: ReferenceArray | null, channels: number) =>
    array === null ? null : vector(array, channels);
  const wire = (format: WireFormat, array: ReferenceArray, channels: number) =>
    readWire(array, format, format.length(channels)).wire;
  /** [count, mean C, m2 C] of moments, weighted ones too. */
  const momentsOf = (array: ReferenceArray, channels: number): Float64Array =>
    store.kindOf(array) === weightedMomentsWire.name
      ? wire(ofWeighted, array, channels).subarray(1)
      : wire(ofMoments, array, channels);
  /** Weights of the positions of a view, where there are some. */
  const weightsOf = (weights: Input | undefined, { shape: [batch, , ...spatial] }: Input) => {
    if (weights === undefined) return null;
    const perSample = weights.shape.length === 2;
    const shape = perSample ? [batch, 1] : [batch, 1, ...spatial];
    const own = store.read(weights.data, elements(shape), weights.dtype);
    return plain.weightsView(own, extents([batch, 1, ...spatial]), perSample);
  };
  const channels = (
    statistics: Statistics<ReferenceArray>,
    C: number,
  ): plain.ChannelStatistics =>
    statistics.source === "batch"
      ? kernels.statisticsOf(momentsOf(statistics.moments, C))
      : { count: 0, mean: vector(statistics.mean, C), variance: vector(statistics.variance, C) };
  const directed = ({ input, weight, bias, residual }: Directions<ReferenceArray>, C: number) => ({
    input: viewOrNull(input),
    weight: vectorOrNull(weight, C),
    bias: vectorOrNull(bias, C),
    residual: viewOrNull(residual),
  });
  const toWireNow = (array: ReferenceArray) => readWire(array).wire.slice();

  const device: Device<ReferenceArray> = {
    info: Object.freeze({
      name: `reference (${exact ? "exact sums" : "float64 loops"} on the CPU)`,
      float16: store.float16,
      passes: exact ? EXACT_PASSES : PASSES,
      exact,
    }),
    ...(wires && { wires }),

    upload: (values, dtype = "float32") => {
      const copy = allocate(values.length, dtype);
      copy.set(values);
      return own(copy);
    },
    // Not by from(), which goes through numbers: a NaN may have other bits then.
    download: (array) => promised(() => new Float32Array(store.read(array))),
    downloadAll: (arrays) =>
      promised(() => {
        const parts = arrays.map((array) => store.read(array));
        const all = new Float32Array(parts.reduce((total, { length }) => total + length, 0));
        parts.reduce((at, values) => (all.set(values, at), at + values.length), 0);
        return all;
      }),
    free: store.free,
    owns: store.owns,
    describe: store.describe,

    moments: ({ input, weights }) => {
      const x = view(input);
      const w = weightsOf(weights, input);
      return w === null
        ? ownWire(ofMoments, kernels.moments(x))
        : ownWire(ofWeighted, kernels.weightedMoments(x, w));
    },
    normalize: ({ input, statistics, affine: { weight, bias, eps }, residual, activation }) => {
      const x = view(input);
      const C = x.channels;
      const affine = { weight: vectorOrNull(weight, C), bias: vectorOrNull(bias, C), eps };
      const added = viewOrNull(residual);
      const output = allocate(x.values.length, input.dtype);
      const bounds = activation ? boundsOf(activation, input.dtype) : null;
      kernels.normalize(x, channels(statistics, C), affine, added, bounds, output);
      return own(output);
    },
    gradientSums: ({ input, gradOutput, statistics, output, weights }) => {
      const [x, dy, gate] = [view(input), view(gradOutput), gateOf(output)];
      const resolved = channels(statistics, x.channels);
      const w = weightsOf(weights, input);
      return ownWire(ofSums, kernels.gradientSums(x, dy, resolved, gate, w));
    },
    gradients: (
      { input, gradOutput, statistics, output, affine, sums, residualFormat, weights },
    ) => {
      const [x, dy, gate] = [view(input), view(gradOutput), gateOf(output)];
      const C = x.channels;
      const { weight, bias, eps } = affine;
      const resolved = channels(statistics, C);
      const scale = { weight: vectorOrNull(weight, C), eps };
      vectorOrNull(bias, C);
      const local = wire(ofSums, sums.local, C);
      const total = sums.total === null ? null : wire(ofSums, sums.total, C);
      const gradInput = allocate(x.values.length, input.dtype);
      kernels.gradInput(x, dy, resolved, scale, total, gate, weightsOf(weights, input), gradInput);
      const { gradWeight, gradBias } = kernels.gradParameters(local, resolved, eps);
      const group = exact && total ? kernels.gradParameters(total, resolved, eps) : null;
      const residual = (format: Format): ReferenceArray => {
        const result = allocate(dy.values.length, gradOutput.dtype);
        kernels.gate(dy, gate, plain.view(result, gradOutput.shape, format));
        return own(result);
      };
      return {
        gradInput: own(gradInput),
        gradWeight: weight === null ? null : own(gradWeight),
        gradBias: bias === null ? null : own(gradBias),
        gradResidual: residualFormat === undefined ? null : residual(residualFormat),
        ...(group && {
          groupWeight: weight === null ? null : own(group.gradWeight),
          groupBias: bias === null ? null : own(group.gradBias),
        }),
      };
    },
    tangents: (
      { input, statistics, affine: { weight, eps }, output, directions, total, moments, weights },
    ) => {
      const x = view(input);
      const C = x.channels;
      const scale = { weight: vectorOrNull(weight, C), eps };
      const cotangents = {
        mean: vectorOrNull(moments?.mean ?? null, C),
        variance: vectorOrNull(moments?.variance ?? null, C),
      };
      const sums = total && wire(ofSums, total, C);
      const [along, gate] = [directed(directions, C), gateOf(output)];
      const resolved = channels(statistics, C);
      const result = allocate(x.values.length, input.dtype);
      const w = weightsOf(weights, input);
      const { tangents } = exact ? exactTangents : second;
      tangents(x, resolved, scale, along, sums, cotangents, gate, w, result);
      return own(result);
    },
    secondGradients: (pass) => {
      const { input, gradOutput, statistics, affine: { weight, eps }, output, directions } = pass;
      const [x, dy, gate] = [view(input), view(gradOutput), gateOf(output)];
      const C = x.channels;
      const scale = { weight: vectorOrNull(weight, C), eps };
      const resolved = channels(statistics, C);
      const along = directed(directions, C);
      const sums = (array: ReferenceArray) => wire(sumsWire, array, C);
      const [gradient, ofAlong, ofProducts, ofWeighted] = [
        pass.total,
        pass.along?.total ?? null,
        pass.products.total,
        pass.weighted,
      ].map((array) => array && sums(array));
      const ownAlong = pass.along && sums(pass.along.local);
      const ownProducts = sums(pass.products.local);
      const weighted = ofWeighted ?? gradient?.map((sum, i) => sum * (along.weight?.[i % C] ?? 0));
      const totals = gradient && ofAlong && ofProducts && weighted
        ? { gradient, along: ofAlong, products: ofProducts, weighted }
        : null;
      const [gradInput, gradGradOutput] = [0, 1].map(() => allocate(x.values.length, input.dtype));
      const w = weightsOf(pass.weights, input);
      second.secondGradInput(x, dy, resolved, scale, along, totals, gate, w, gradInput);
      const none = { mean: null, variance: null };
      const moved = totals && ofAlong;
      second.tangents(x, resolved, scale, along, moved, none, gate, null, gradGradOutput);
      const gradWeight = second.secondGradWeight(resolved, eps, gradient, ownAlong, ownProducts);
      return {
        gradInput: own(gradInput),
        gradGradOutput: own(gradGradOutput),
        gradWeight: weight === null ? null : own(gradWeight),
      };
    },
    updateRunningStats: ({ running: { runningMean, runningVar }, moments, factor }) => {
      const { length } = store.read(runningMean);
      const old = { mean: vector(runningMean, length), variance: vector(runningVar, length) };
      const mean = new Float32Array(length);
      const variance = new Float32Array(length);
      const observed = momentsOf(moments, length);
      kernels.updateRunningStats(observed, factor, old, { mean, variance });
      return { runningMean: own(mean), runningVar: own(variance) };
    },
    addScaled: ({ x, y, scale }) => {
      const augend = store.read(x);
      const addend = store.read(y, augend.length);
      return own(augend.map((value, i) => value + scale * addend[i]));
    },
    arrange: ({ parts }) => {
      const all = parts.map(({ input, from, to }) => {
        const each = elements(input.shape.slice(1));
        return values(input).subarray(from * each, to * each);
      });
      if (all.length === 1) return own(all[0]);
      const result = allocate(
        all.reduce((sum, { length }) => sum + length, 0),
        parts[0].input.dtype,
      );
      all.reduce((at, part) => (result.set(part, at), at + part.length), 0);
      return own(result);
    },

    toWire: (array) => promised(() => toWireNow(array)),
    toWireNow,
    fromWire: (format, wire) => ownWire(format, Float64Array.from(wire)),
    merge: (a, b) => {
      const { format, wire } = readWire(a);
      const merged = format.combine(wire, readWire(b, format, wire.length).wire);
      // Of two sets one of which is empty the combine gives the other itself.
      const own = Float64Array.from(merged);
      if (exact) carryWire(format, own);
      return ownWire(format, own);
    },
  };
  const { secondGradients: _, ...first } = device;
  return Object.freeze(exact ? first : device);
}

/** Runs a body at once and gives its result, or its error, as a promise. */
function promised<T>(body: () => T): Promise<T> {
  return new Promise((resolve) => resolve(body()));
}
