/** Second order: what its functions are given beside what forward saved, and the checks that they share. */

import { rectifiedBy } from "../activation.ts";
import { checkOptions } from "../check_effects.ts";
import type { Device, Directions, PassOption, Statistics, SumsPass } from "../device.ts";
import { fixed, type Tensor, tensorLike } from "../tensor.ts";
import { refused } from "../words.ts";
import { checkAlike, checkPass, checkVector } from "./check_call.ts";
import type { Saved } from "./normalize.ts";
import { type Weights, withWeights } from "./weights.ts";

/** Directions as callers name them: those of forward's arguments, or those of a backward pass's results. */
export interface DirectionNames {
  readonly input: string;
  readonly weight: string;
  readonly bias: string;
  readonly residual: string;
}

/** Directions, of which that of the input is always there. */
export type Along<A> = Directions<A> & { readonly input: Tensor<A> };

/** What a normalization had, and may have a direction for. */
export interface Had<A> extends Pick<Saved<A>, "input" | "weight" | "bias"> {
  readonly residual: boolean;
}

/**
 * Checks that a device has the pass, and directions by the names that they are given under; their tensors are copies
 * of the records, which nobody may change while a collective is under way.
 */
export function checkDirections<A>(
  device: Device<A>,
  given: object,
  names: DirectionNames,
  { input, weight, bias, residual }: Had<A>,
  action: string,
  pass: PassOption,
): Along<A> {
  checkPass(device, pass, action);
  checkOptions(given, Object.values(names), action);
  const values = given as Readonly<Record<string, unknown>>;
  const tensorOf = (name: string): Tensor<A> => {
    const tensor = values[name] as Tensor<A>;
    checkAlike(device, tensor, input, action, `direction ${name}`);
    return fixed(tensor);
  };
  const vectorOf = (name: string, own: A | null, what: string): A | null => {
    const vector = values[name] as A | null | undefined;
    if (vector === null || vector === undefined) return null;
    if (own === null) throw lacking(action, name, what);
    checkVector(device, vector, input.shape[1], action, name);
    return vector;
  };
  const added = values[names.residual] !== undefined;
  if (added && !residual) throw lacking(action, names.residual, "residual");
  return {
    input: tensorOf(names.input),
    weight: vectorOf(names.weight, weight, "weight"),
    bias: vectorOf(names.bias, bias, "bias"),
    residual: added ? tensorOf(names.residual) : undefined,
  };
}

const lacking = (action: string, name: string, what: string): TypeError =>
  refused(action, `forward must have had a ${what} where ${name} is given`, "one had none");

/** What forward saved as it is now, with the device's words for it. */
export function passOf<A>(saved: Saved<A>) {
  const { input, output, moments, weight, bias, eps, weights, lengths } = saved;
  const statistics: Statistics<A> = { source: "batch", moments: moments.data };
  return {
    input: fixed(input),
    statistics,
    output: output === null ? undefined : rectifiedBy(output.activation, output),
    affine: { weight, bias, eps },
    counted: { weights, lengths },
  };
}

/** Gradient sums of the input's direction, by the weights of examples. */
export function sumsAlong<A>(
  device: Device<A>,
  { input, statistics, directions, counted = {} }: Pick<SumsPass<A>, "input" | "statistics"> & {
    readonly directions: Along<A>;
    readonly counted?: Weights<A>;
  },
): A {
  const gradOutput = directions.input;
  return withWeights(
    device,
    input,
    counted,
    (weights) => device.gradientSums({ input, gradOutput, statistics, weights }),
  );
}

/**
 * A vector of float32 as gradient sums, exactly, in the place of (S1, .): so it is read back along with other statistics, at once
 * where they are.
 */
export function vectorAsSums<A>(device: Device<A>, vector: A): A {
  const { length } = device.describe(vector);
  const row = tensorLike({
    ...{ data: vector, shape: [1, length], dtype: "float32", format: "channelsFirst" },
  }, vector);
  const statistics: Statistics<A> = { source: "running", mean: vector, variance: vector };
  return device.gradientSums({ input: row, gradOutput: row, statistics });
}

/** What is made of several wires, at once where all have been read. */
export function readTogether(
  reads: readonly (Float64Array | Promise<Float64Array>)[],
  join: (wires: readonly Float64Array[]) => Float64Array,
): Float64Array | Promise<Float64Array> {
  const isRead = (wire: Float64Array | Promise<Float64Array>): wire is Float64Array =>
    !(wire instanceof Promise);
  return reads.every(isRead) ? join(reads) : Promise.all(reads).then(join);
}
