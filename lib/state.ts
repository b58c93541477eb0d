/** How to make, change and move the state of a batch norm. */

import {
  type BatchNormState,
  checkConfiguration,
  checkHostState,
  checkState,
  checkStateRecord,
} from "./check_state.ts";
import { checkHandle, checkOptions } from "./check_effects.ts";
import { checkOneOf } from "./check_value.ts";
import type { Device } from "./device.ts";
import { region } from "./ownership.ts";
import { checkMomentum, type Momentum } from "./schedule.ts";
import { shown, wrongKind } from "./words.ts";

export type { BatchNormState } from "./check_state.ts";

/** Options of {@linkcode initBatchNorm}. */
export interface BatchNormOptions {
  /** Added to the variance; 1e-5 by default. */
  readonly eps?: number;
  /**
   * Weight of the new batch in the running statistics, null for a cumulative average, or a rule that lets it follow the
   * counter; 0.1 by default.
   */
  readonly momentum?: Momentum;
  /** Which variance of a batch the running one follows; `"unbiased"` by default, as in PyTorch. */
  readonly runningVariance?: "unbiased" | "biased";
  /** Whether there are a weight and a bias; true by default. */
  readonly affine?: boolean;
  /** Whether there is a weight; as `affine` by default. */
  readonly scale?: boolean;
  /** Whether there is a bias; as `affine` by default. */
  readonly bias?: boolean;
  /** Whether running statistics are kept; true by default. */
  readonly trackRunningStats?: boolean;
  /**
   * First value of the weight: 1 (by default, as PyTorch does since 1.2) or drawn from U(0, 1), as PyTorch's page of
   * SyncBatchNorm still says.
   */
  readonly weightInit?: "ones" | "uniform";
  /** Source of numbers in [0, 1) for `"uniform"`; give each rank one of the same seed. */
  readonly random?: () => number;
}

const ACTION = "initialize the batch norm";
/** The names of {@linkcode BatchNormOptions}. */
export const BATCH_NORM_OPTIONS: readonly string[] = [
  "eps",
  "momentum",
  "runningVariance",
  "affine",
  "scale",
  "bias",
  "trackRunningStats",
  "weightInit",
  "random",
] satisfies readonly (keyof BatchNormOptions)[];

/**
 * Makes the state of a new batch norm: weight 1, bias 0, running mean 0, running variance 1, counter 0.
 *
 * @param device where its vectors shall live
 * @param numFeatures number of channels C, >= 1
 * @returns a frozen state that owns its vectors, each of shape (C), float32
 * @throws RangeError for a value out of range, TypeError for `weightInit` without `random`
 *
 * @example
 * ```ts
 * import { initBatchNorm, referenceDevice } from "@syncbn/syncbn";
 *
 * const state = initBatchNorm(referenceDevice(), 64, { momentum: 0.05 });
 * console.assert(state.numBatchesTracked === 0 && state.weight !== null);
 * ```
 */
export function initBatchNorm<A>(
  device: Device<A>,
  numFeatures: number,
  options: BatchNormOptions = {},
): BatchNormState<A> {
  if (typeof device?.upload !== "function") {
    throw new TypeError(
      `Cannot ${ACTION} as its first argument must be a device: ` +
        `current value is ${shown(device)}; call initBatchNorm(device, numFeatures, options)`,
    );
  }
  checkOptions(options, BATCH_NORM_OPTIONS, ACTION);
  return stateFromHost(device, firstState(numFeatures, options, ACTION));
}

/** Makes the numbers of a new batch norm on the host. */
export function firstState(
  numFeatures: number,
  options: BatchNormOptions,
  action: string,
): BatchNormState<Float32Array> {
  const { eps = 1e-5, momentum = 0.1, affine = true, trackRunningStats = true } = options;
  const { scale = affine, bias = affine, weightInit = "ones", random } = options;
  const { runningVariance } = options;
  for (const [name, value] of Object.entries({ affine, trackRunningStats, scale, bias })) {
    checkOneOf(value, [true, false], name, action);
  }
  checkMomentum(momentum, action);
  checkConfiguration(
    { numFeatures, eps, momentum, runningVariance, numBatchesTracked: 0 },
    action,
  );
  const vector = (value: number) => new Float32Array(numFeatures).fill(value);
  const firstWeight = (): Float32Array => {
    if (weightInit === "ones") return vector(1);
    checkOneOf(weightInit, ["ones", "uniform"], "weightInit", action);
    if (typeof random === "function") return vector(0).map(() => random());
    const wanted =
      'weightInit "uniform" needs options.random, a seeded source of numbers in [0, 1)';
    throw wrongKind(action, wanted, random);
  };
  return {
    numFeatures,
    eps,
    momentum,
    weight: scale ? firstWeight() : null,
    bias: bias ? vector(0) : null,
    runningMean: trackRunningStats ? vector(0) : null,
    runningVar: trackRunningStats ? vector(1) : null,
    ...(runningVariance !== undefined && { runningVariance }),
    numBatchesTracked: 0,
  };
}

/**
 * Replaces the weight, the bias or both, for an optimiser's step or for one call (conditional batch norm).
 *
 * @param state the state to start from; it is not changed
 * @param parameters the new vectors, shape (C), float32; null for none, left out for the old one
 * @returns a frozen state that shares everything else with the old one
 * @throws TypeError or RangeError where the state is malformed, a field is no parameter, or one can be no array
 *
 * @example One step of gradient descent
 * ```ts
 * import { addScaled, initBatchNorm, referenceDevice, withParameters } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2, { bias: false });
 * const gradWeight = device.upload(Float32Array.of(0.5, -0.5));
 * const weight = addScaled(device, state.weight!, gradWeight, -0.1);
 * console.assert(withParameters(state, { weight }).runningMean === state.runningMean);
 * ```
 */
export function withParameters<A>(
  state: BatchNormState<A>,
  parameters: { readonly weight?: A | null; readonly bias?: A | null },
): BatchNormState<A> {
  const action = "replace the parameters";
  checkConfiguration(state, action);
  checkOptions(parameters, ["weight", "bias"], action);
  const { weight = state.weight, bias = state.bias } = parameters;
  const next = Object.freeze({ ...state, weight, bias });
  checkStateRecord(next, action);
  return next;
}

/**
 * Copies a state to the host, to keep, print or move it.
 *
 * @param device the device that the state lives on
 * @param state the state to copy; it is not changed
 * @returns a frozen state of the same numbers; null stays null
 * @throws TypeError or RangeError where the state is malformed or its arrays are not live
 *
 * @example Two states with the same numbers
 * ```ts
 * import { initBatchNorm, referenceDevice, stateFromHost, stateToHost } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const host = await stateToHost(device, initBatchNorm(device, 2));
 * assert.deepEqual(host.weight, Float32Array.of(1, 1));
 * const gentler = stateFromHost(device, { ...host, momentum: 0.01 });
 * ```
 */
export async function stateToHost<A>(
  device: Device<A>,
  state: BatchNormState<A>,
): Promise<BatchNormState<Float32Array>> {
  const action = "copy the state";
  checkHandle(device, "download", action);
  checkState(device, state, action);
  const copy = (vector: A | null) => vector === null ? null : device.download(vector);
  const { weight, bias, runningMean, runningVar } = state;
  const vectors = await Promise.all([weight, bias, runningMean, runningVar].map(copy));
  return Object.freeze({ ...state, ...named(vectors) });
}

/**
 * Copies a state from the host onto a device.
 *
 * @param device where its vectors shall live
 * @param hostState the numbers, each vector of length C
 * @returns a frozen state that owns its vectors; null stays null
 * @throws TypeError for a vector of another length or only one running statistic, RangeError for a value out of range
 *
 * @example
 * ```ts
 * import { initBatchNorm, referenceDevice, stateFromHost, stateToHost } from "@syncbn/syncbn";
 *
 * const [here, there] = [referenceDevice(), referenceDevice()];
 * const state = initBatchNorm(here, 8);
 * const moved = stateFromHost(there, await stateToHost(here, state));
 * console.assert(there.owns(moved.weight) && !there.owns(state.weight));
 * ```
 */
export function stateFromHost<A>(
  device: Device<A>,
  hostState: BatchNormState<Float32Array>,
): BatchNormState<A> {
  const action = "upload the state";
  checkHandle(device, "upload", action);
  checkHostState(hostState, action);
  checkMomentum(hostState.momentum, action);
  return region(device, (scope) => {
    const copy = (vector: Float32Array | null) => vector === null ? null : scope.upload(vector);
    const { weight, bias, runningMean, runningVar } = hostState;
    const vectors = [weight, bias, runningMean, runningVar].map(copy);
    return Object.freeze({ ...hostState, ...named(vectors) });
  });
}

function named<V>([weight, bias, runningMean, runningVar]: readonly (V | null)[]) {
  return { weight, bias, runningMean, runningVar };
}
