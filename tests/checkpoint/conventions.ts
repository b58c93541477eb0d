/** The ways in and out of Keras and Flax as one record each, so that one text tests both. */

import type { BatchNormState } from "../../mod.ts";
import {
  type ExportBatchNormOptions,
  type FlaxVariables,
  fromFlax,
  fromKeras,
  type ImportBatchNormOptions,
  type ImportedBatchNorm,
  type KerasWeights,
  toFlax,
  toKeras,
} from "../../lib/checkpoint.ts";

/** A framework's vectors under its own names; null or missing where the layer has none. */
export type Named = Readonly<Record<string, Float32Array | null>>;

/** One framework's pair of functions. */
export interface Convention {
  readonly name: string;
  /** Its default. */
  readonly epsilon: number;
  /** Its names for weight, bias, running mean and running variance. */
  readonly names: readonly [weight: string, bias: string, mean: string, variance: string];
  /** What its settings call the presence of weight and bias. */
  readonly present: readonly [weight: string, bias: string];
  readonly read: (vectors: unknown, options: ImportBatchNormOptions) => ImportedBatchNorm;
  readonly write: (state: BatchNormState<Float32Array>, options: ExportBatchNormOptions) => {
    readonly vectors: Named;
    readonly config: Readonly<Record<string, number | boolean>>;
  };
}

/** Keras 3. */
export const KERAS: Convention = {
  name: "Keras",
  epsilon: 1e-3,
  names: ["gamma", "beta", "moving_mean", "moving_variance"],
  present: ["scale", "center"],
  read: (weights, options) => fromKeras(weights as KerasWeights, options),
  write: (state, options) => {
    const { weights, config } = toKeras(state, options);
    return { vectors: { ...weights }, config: { ...config } };
  },
};

/** Flax, linen and nnx. */
export const FLAX: Convention = {
  name: "Flax",
  epsilon: 1e-5,
  names: ["scale", "bias", "mean", "var"],
  present: ["use_scale", "use_bias"],
  read: (variables, options) => fromFlax(variables as FlaxVariables, options),
  write: (state, options) => {
    const { variables, config } = toFlax(state, options);
    return { vectors: { ...variables }, config: { ...config } };
  },
};
