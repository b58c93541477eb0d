/**
 * Weights of examples: what a call is given, checked, and as a pass takes it.
 *
 * Only a device can look at weights that lie on it, and some do not read back at once. So what is wrong with them shows in
 * their sum, which is not finite then (`weightedMomentsWire`). Lengths are the host's own: it knows all of them.
 */

import type { Device } from "../device.ts";
import { checkTensor, extents, type Tensor, tensorLike } from "../tensor.ts";
import { formatOn, momentsWire, weightedMomentsWire, type WireFormat } from "../wire.ts";
import { listed, refused, wrongKind, wrongPair, wrongValue } from "../words.ts";
import { checkPass } from "./check_call.ts";

/**
 * How much each position of a batch counts in its statistics: one of the two, or neither where all count alike.
 *
 * @example Padding does not count, whatever stands there
 * ```ts
 * import { batchNormForward, initBatchNorm, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 3, 5, NaN], [2, 1, 2]);
 * const lengths = Int32Array.of(2, 1);
 * const { moments } = batchNormForward(initBatchNorm(device, 1), x, { device }, { lengths });
 * assert.deepEqual(await device.toWire(moments.data), Float64Array.of(3, 3, 3, 8));
 * ```
 */
export interface WeightOptions<A> {
  /**
   * Weights of the examples, finite and >= 0, float32 or float16: a tensor of shape (N), (N, 1) or (N, 1, ...spatial), or an
   * array of N float32. A mask is one of 0 and 1. Output there is everywhere, but what has weight 0 takes no part in
   * statistics, whatever it is.
   */
  readonly weights?: Tensor<A> | A;
  /** Of padded sequences (N, C, L): positions that each has, from 0 to L; those behind it have weight 0. */
  readonly lengths?: Int32Array;
}

/** Weights that are checked: a tensor of shape (N, 1) or (N, 1, ...spatial), or lengths. */
export interface Weights<A> {
  /** Weights of samples or places, borrowed. */
  readonly weights?: Tensor<A>;
  /** Positions that each sequence has. */
  readonly lengths?: Int32Array;
}

/** The weights of a call, in the place of what it was given. */
export interface Taken<A> extends Weights<A> {
  readonly weights: Tensor<A> | undefined;
  readonly lengths: Int32Array | undefined;
}

const NONE = /* @__PURE__ */ Object.freeze({ weights: undefined, lengths: undefined });

/** Whether a call has weights, before anything of it is checked. */
export function isWeighted(
  options: { readonly weights?: unknown; readonly lengths?: unknown } | null | undefined,
): boolean {
  return options?.weights !== undefined || options?.lengths !== undefined;
}

/** What the statistics of a call travel as, and its label: weights on some ranks alone are another call. */
export function travelling(
  options: Parameters<typeof isWeighted>[0],
  label: string,
): { readonly format: WireFormat; readonly label: string } {
  return isWeighted(options)
    ? { format: weightedMomentsWire, label: `${label} weighted` }
    : { format: momentsWire, label };
}

/** The options of a call, whose weights are checked and a snapshot of what was given. */
export type Weighed<A, O> = Omit<O, "weights" | "lengths"> & Weights<A>;

/** Checks the weights of a call, and puts a snapshot in their place; options without any are the same ones. */
export function weighed<A, O extends WeightOptions<A>>(
  device: Device<A>,
  input: Tensor<A>,
  options: O,
  action: string,
): Weighed<A, O> {
  if (!isWeighted(options)) return options as O & Weights<A>;
  return { ...options, ...takeWeights(device, input, options, action) };
}

/** Checks the weights of a call, and takes a snapshot of them; of a call without any there is nothing to take. */
export function takeWeights<A>(
  device: Device<A>,
  input: Tensor<A>,
  { weights, lengths }: WeightOptions<A>,
  action: string,
): Taken<A> {
  if (weights === undefined && lengths === undefined) return NONE;
  checkPass(device, "weights", action);
  const { shape } = input;
  const [batch] = shape;
  if (lengths === undefined) {
    return { weights: weightsLike(device, weights!, shape, action), lengths };
  }
  if (weights !== undefined) {
    throw refused(action, "it takes weights or lengths", "call has both");
  }
  if (!(lengths instanceof Int32Array)) {
    throw wrongKind(action, "lengths must be an Int32Array", lengths);
  }
  if (shape.length !== 3 || lengths.length !== batch) {
    const wanted = "lengths must be N, one for each sequence of an input of shape (N, C, L)";
    throw wrongPair(action, wanted, lengths.length, listed(shape));
  }
  const wrong = lengths.find((length) => length < 0 || length > shape[2]);
  if (wrong === undefined) return { weights: undefined, lengths: lengths.slice() };
  throw wrongValue(action, `every length must be from 0 to ${shape[2]}`, wrong);
}

function weightsLike<A>(
  device: Device<A>,
  given: Tensor<A> | A,
  shape: readonly number[],
  action: string,
): Tensor<A> {
  const [batch, , ...spatial] = shape;
  const whole = [batch, 1, ...spatial];
  const isOf = (wanted: readonly number[], own: readonly number[]) =>
    own.length === wanted.length && wanted.every((extent, i) => extent === own[i]);
  if (!device.owns(given) && Object(given).shape === undefined) {
    checkTensor(device, given as Tensor<A>, action, "weights");
  }
  const bare = {
    data: given as A,
    shape: [batch],
    dtype: "float32",
    format: "channelsFirst",
  } as const;
  const { data, shape: own, ...how } = device.owns(given) ? bare : given as Tensor<A>;
  const perSample = Array.isArray(own) && own[0] === batch &&
    own.slice(1).every((extent) => extent === 1);
  const like = { data, ...how, shape: perSample ? [batch, 1] : own };
  checkTensor(device, like, action, "weights");
  if (perSample || isOf(whole, own)) return tensorLike(like, data);
  const wanted = `weights must be of shape (${batch}) or ${listed(whole)}`;
  throw wrongKind(action, wanted, own, "shape");
}

/** Runs a body with the weights as a pass takes them; what is made of lengths is freed after it. */
export function withWeights<A, R>(
  device: Device<A>,
  input: Tensor<A>,
  { weights, lengths }: Weights<A>,
  body: (weights: Tensor<A> | undefined) => R,
): R {
  if (lengths === undefined) return body(weights);
  const { batch, inner } = extents(input.shape);
  const mask = new Float32Array(batch * inner);
  lengths.forEach((length, n) => mask.fill(1, n * inner, n * inner + length));
  const data = device.upload(mask);
  try {
    return body(tensorLike({ ...input, dtype: "float32", shape: [batch, 1, inner] }, data));
  } finally {
    device.free(data);
  }
}

/** What may be known of weights: how many are positive, and their sum; null where only the device knows. */
export interface Totals {
  readonly positives: number | null;
  readonly count: number | null;
}

/** What the host knows of weights once moments are launched; a RangeError where it finds wrong ones. */
export function totalsOf<A>(
  device: Device<A>,
  { lengths }: Weights<A>,
  moments: A,
  isEmpty: boolean,
  action: string,
): Totals {
  if (lengths !== undefined) {
    const count = lengths.reduce((sum, length) => sum + length, 0);
    return { positives: count, count };
  }
  if (isEmpty) return { positives: 0, count: 0 };
  if (device.toWireNow === undefined) return { positives: null, count: null };
  const own = device.toWireNow(moments);
  formatOn(device, weightedMomentsWire).checkOwn!(own, action);
  const [positives, count] = own;
  return { positives, count };
}

/** Checks that moments and the call that they are given to count by weight, or neither: backward would be another's. */
export function checkBoth(
  { positives }: { readonly positives?: number | null },
  weights: Weights<unknown>,
  action: string,
): void {
  if ((positives !== undefined) === isWeighted(weights)) return;
  const [wanted, came] = positives === undefined ? ["no weights", "some"] : ["weights", "none"];
  throw refused(action, `moments of a batch with ${wanted} need ${wanted}`, `call has ${came}`);
}
