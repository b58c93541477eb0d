/** Batch norms of Keras 3 (`keras.layers.BatchNormalization`) in and out. */

import type { BatchNormState } from "../../state.ts";
import {
  exportBatchNorm,
  type ExportBatchNormOptions,
  type Framework,
  importBatchNorm,
  type ImportBatchNormOptions,
  type ImportedBatchNorm,
} from "./decay.ts";

/** The vectors of a Keras layer under their own names, each of shape (C), float32. */
export interface KerasWeights {
  /** Scale; null or left out where the layer has `scale=False`. */
  readonly gamma?: Float32Array | null;
  /** Offset; null or left out where the layer has `center=False`. */
  readonly beta?: Float32Array | null;
  /** Running mean. */
  readonly moving_mean: Float32Array;
  /** Running biased variance. */
  readonly moving_variance: Float32Array;
}

/** The settings of a Keras layer under their own names. */
export interface KerasConfig {
  /** Weight of the OLD value in the running statistics. */
  readonly momentum: number;
  /** Added to the variance before its root. */
  readonly epsilon: number;
  /** Axis of the channels: 1, or -1 for the last. */
  readonly axis: number;
  /** Whether there is a beta. */
  readonly center: boolean;
  /** Whether there is a gamma. */
  readonly scale: boolean;
}

/** A batch norm as Keras has it. */
export interface KerasBatchNorm {
  /** The vectors. */
  readonly weights: Required<KerasWeights>;
  /** What to build the layer with. */
  readonly config: KerasConfig;
}

const KERAS = {
  called: "Keras",
  epsilon: 1e-3,
  names: {
    weight: "gamma",
    bias: "beta",
    runningMean: "moving_mean",
    runningVar: "moving_variance",
  },
} as const satisfies Framework;

/**
 * Makes a state of a Keras layer's weights.
 *
 * Keras's momentum is the weight of the OLD value, ours = 1 - theirs (0.99 gives 0.01, in decimal). Keras's running
 * variance is biased (divided by n), ours unbiased (by n - 1): with `count`, training goes on as it would have in Keras,
 * and with null evaluation gives Keras's numbers. Both do where `runningVariance: "biased"` keeps the variance as Keras has it.
 *
 * Keras 2 on TensorFlow keeps the unbiased variance in layers that are fused, as those for inputs of rank 4 and 5 are:
 * take it as it is.
 *
 * @param weights vectors of shape (C), float32; they are not changed
 * @param options `count` is required; the rest is as in the layer's config: momentum 0.99, epsilon 1e-3 and axis -1 by
 * default, and `rank` where axis is neither 1 nor -1
 * @returns a frozen state on the host that shares no memory with the weights, and the format of the layer's inputs
 * @throws TypeError where `count` is missing or a vector is missing, has another length or an unknown name, RangeError for
 * a value out of range or an axis that is neither the second nor the last
 *
 * @example A layer whose batches had 32 samples of 8x8 positions
 * ```ts
 * import { fromKeras } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const moments = { moving_mean: Float32Array.of(3, 4), moving_variance: Float32Array.of(2047, 4094) };
 * const weights = { gamma: Float32Array.of(1, 2), beta: Float32Array.of(0, 0), ...moments };
 * const { state, format } = fromKeras(weights, { count: 32 * 8 * 8 });
 * assert.deepEqual(state.runningVar, Float32Array.of(2048, 4096));
 * assert.equal(state.momentum, 0.01);
 * assert.equal(format, "channelsLast");
 * ```
 */
export function fromKeras(
  weights: KerasWeights,
  options: ImportBatchNormOptions,
): ImportedBatchNorm {
  return importBatchNorm(weights, options, KERAS);
}

/**
 * Makes a Keras layer's weights and config of a state: the inverse of {@linkcode fromKeras} with the same `count`.
 *
 * Vectors come back bit for bit where `count` is null, else the variance within a unit of the last place; momentum exactly
 * where it has up to 15 decimal places, else within 2^-53. numBatchesTracked has no counterpart and is left out.
 *
 * @param state the state, on the host (`stateToHost`); it is not changed
 * @param options `count` as in {@linkcode fromKeras}; `format` gives the axis: `"channelsLast"`, by default, -1 and
 * `"channelsFirst"` 1
 * @returns frozen records of new vectors, null for a gamma or beta that is not there, and of the layer's arguments
 * @throws TypeError where `count` is missing, for a cumulative average (momentum null) and for a state without running
 * statistics, none of which Keras has; RangeError for a value out of range
 *
 * @example
 * ```ts
 * import { initBatchNorm, referenceDevice, stateToHost } from "@syncbn/syncbn";
 * import { toKeras } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = await stateToHost(device, initBatchNorm(device, 2, { bias: false }));
 * const { weights, config } = toKeras(state, { count: null });
 * assert.deepEqual(weights.gamma, Float32Array.of(1, 1));
 * assert.deepEqual(config, { momentum: 0.9, epsilon: 1e-5, axis: -1, center: false, scale: true });
 * ```
 */
export function toKeras(
  state: BatchNormState<Float32Array>,
  options: ExportBatchNormOptions,
): KerasBatchNorm {
  const { vectors, settings } = exportBatchNorm(state, options, KERAS);
  const { weight: gamma, bias: beta, runningMean: moving_mean, runningVar: moving_variance } =
    vectors;
  const own = { center: beta !== null, scale: gamma !== null };
  return Object.freeze({
    weights: Object.freeze({ gamma, beta, moving_mean, moving_variance }),
    config: Object.freeze({ ...settings, ...own }),
  });
}
