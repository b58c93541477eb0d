/** Batch norms of Flax (`flax.linen.BatchNorm` and `flax.nnx.BatchNorm`) in and out. */

import type { BatchNormState } from "../../state.ts";
import {
  exportBatchNorm,
  type ExportBatchNormOptions,
  type Framework,
  importBatchNorm,
  type ImportBatchNormOptions,
  type ImportedBatchNorm,
} from "./decay.ts";
import type { KerasConfig } from "./keras.ts";

/** The vectors of a Flax layer under their own names, each of shape (C), float32: those of linen stand in two collections. */
export interface FlaxVariables {
  /** Scale; null or left out where the layer has `use_scale=False`. */
  readonly scale?: Float32Array | null;
  /** Offset; null or left out where the layer has `use_bias=False`. */
  readonly bias?: Float32Array | null;
  /** Running mean. */
  readonly mean: Float32Array;
  /** Running biased variance. */
  readonly var: Float32Array;
}

/** The settings of a Flax layer under their own names. */
export interface FlaxConfig extends Pick<KerasConfig, "momentum" | "epsilon" | "axis"> {
  /** Whether there is a bias. */
  readonly use_bias: boolean;
  /** Whether there is a scale. */
  readonly use_scale: boolean;
}

/** A batch norm as Flax has it. */
export interface FlaxBatchNorm {
  /** The vectors. */
  readonly variables: Required<FlaxVariables>;
  /** What to build the layer with. */
  readonly config: FlaxConfig;
}

const FLAX = {
  called: "Flax",
  epsilon: 1e-5,
  names: { weight: "scale", bias: "bias", runningMean: "mean", runningVar: "var" },
} as const satisfies Framework;

/**
 * Makes a state of a Flax layer's variables, with momentum and variance converted as {@linkcode fromKeras} does.
 *
 * @param variables vectors of shape (C), float32; they are not changed
 * @param options as in {@linkcode fromKeras}, with an epsilon of 1e-5 by default
 * @returns a frozen state on the host that shares no memory with the variables, and the format of the layer's inputs
 * @throws what {@linkcode fromKeras} throws
 *
 * @example A layer of linen, for evaluation
 * ```ts
 * import { fromFlax } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const params = { scale: Float32Array.of(1, 2), bias: Float32Array.of(0, 0) };
 * const batch_stats = { mean: Float32Array.of(3, 4), var: Float32Array.of(5, 6) };
 * const { state } = fromFlax({ ...params, ...batch_stats }, { count: null, momentum: 0.9 });
 * assert.deepEqual(state.runningVar, Float32Array.of(5, 6));
 * assert.equal(state.momentum, 0.1);
 * ```
 */
export function fromFlax(
  variables: FlaxVariables,
  options: ImportBatchNormOptions,
): ImportedBatchNorm {
  return importBatchNorm(variables, options, FLAX);
}

/**
 * Makes a Flax layer's variables and attributes of a state: the inverse of {@linkcode fromFlax} with the same `count`, as
 * exact as {@linkcode toKeras}.
 *
 * @param state the state, on the host (`stateToHost`); it is not changed
 * @param options as in {@linkcode toKeras}
 * @returns frozen records of new vectors, null for a scale or bias that is not there, and of the layer's attributes
 * @throws what {@linkcode toKeras} throws
 *
 * @example
 * ```ts
 * import { initBatchNorm, referenceDevice, stateToHost } from "@syncbn/syncbn";
 * import { toFlax } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = await stateToHost(device, initBatchNorm(device, 2));
 * const { variables: { scale, bias, mean, var: variance }, config } = toFlax(state, { count: null });
 * const linen = { params: { scale, bias }, batch_stats: { mean, var: variance } };
 * assert.deepEqual(linen.batch_stats.var, Float32Array.of(1, 1));
 * assert.equal(config.momentum, 0.9);
 * ```
 */
export function toFlax(
  state: BatchNormState<Float32Array>,
  options: ExportBatchNormOptions,
): FlaxBatchNorm {
  const { weight: scale, bias, runningMean, runningVar, ...settings } = exportBatchNorm(
    state,
    options,
    FLAX,
  );
  const own = { use_bias: bias !== null, use_scale: scale !== null };
  return Object.freeze({
    variables: Object.freeze({ scale, bias, mean: runningMean, var: runningVar }),
    config: Object.freeze({ ...settings, ...own }),
  });
}
