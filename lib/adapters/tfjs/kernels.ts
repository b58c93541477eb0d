/**
 * What a batch norm of tfjs's computes between its collectives, as an interface of three functions.
 *
 * @module
 */

import type { WireFormat } from "../../wire.ts";
import type { TfTensor } from "./framework.ts";
import type { View } from "./view.ts";

/** What a batch norm is computed from. */
export interface NormPass {
  /** The input. */
  readonly x: TfTensor;
  /** How it is seen. */
  readonly view: View;
  /** Scale and offset per channel. */
  readonly gamma: TfTensor | null;
  readonly beta: TfTensor | null;
  readonly epsilon: number;
  /** Whether the rows count: those of a rank that has none stand in for it, and bring nothing. */
  readonly counted: boolean;
}

/** Reduces what this rank makes over all ranks; a failure to make it is told to all. */
export type Reduce = (local: () => Float64Array) => Float64Array;

/** Gradients of this rank's rows. */
export interface NormGradients {
  readonly dx: TfTensor;
  /** Of shape (C), of this rank's rows alone. */
  readonly dgamma: TfTensor;
  readonly dbeta: TfTensor;
}

/** What a backward pass was given, and gradients of a loss by what it returned. */
export interface SecondGiven {
  readonly dy: TfTensor;
  /** By dx, in the shape of x; by dgamma and dbeta, of shape (C), zeros where there is no gamma or beta. */
  readonly byDx: TfTensor;
  readonly byDgamma: TfTensor;
  readonly byDbeta: TfTensor;
}

/** Gradients of that loss by what a backward pass is made of. */
export interface SecondGradients {
  readonly byX: TfTensor;
  /** Of shape (C), of this rank's rows alone. */
  readonly byGamma: TfTensor;
  readonly byDy: TfTensor;
}

/**
 * Three functions that compute a batch norm. Moments are [count, mean C, m2 C], gradient sums [sumDy C, sumDyXmu C], those of
 * gradients of gradients as of `secondWire`.
 */
export interface NormKernels {
  /** How moments and gradient sums travel: as those numbers or, of an exact device, as digits. */
  readonly wires: { readonly moments: WireFormat; readonly sums: WireFormat };
  /** The normalised input, in the shape of x. */
  readonly forward: (pass: NormPass, reduce: Reduce) => TfTensor;
  /** `moments` are those that the input was normalised with. */
  readonly backward: (
    pass: NormPass,
    dy: TfTensor,
    moments: Float64Array,
    reduce: Reduce,
  ) => NormGradients;
  readonly second: (
    pass: NormPass,
    given: SecondGiven,
    moments: Float64Array,
    reduce: Reduce,
  ) => SecondGradients;
}

/** Mean and biased variance of moments, as float32; of no rows 0. */
export function meanAndVariance(
  moments: Float64Array,
  channels: number,
): { readonly mean: Float32Array; readonly variance: Float32Array } {
  const [count] = moments;
  const m2 = moments.subarray(1 + channels);
  return {
    mean: Float32Array.from(moments.subarray(1, 1 + channels)),
    variance: Float32Array.from(m2, (value) => count > 0 ? value / count : 0),
  };
}
