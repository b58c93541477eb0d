/** The state of a batch norm: an immutable record, and what it must have on a device, on the host, or wherever it lies. */

import { checkInteger, checkOneOf } from "./check_value.ts";
import { checkShare } from "./check_share.ts";
import { type Momentum, shareOf } from "./schedule.ts";
import { describe, type Describing } from "./tensor.ts";
import { mistaken, refused, shown, wrongKind, wrongPair, wrongValue } from "./words.ts";

/** Tells whether a node of a model says that it is a state. */
export function claimsState<A>(value: object): value is BatchNormState<A> {
  return "numFeatures" in value && "runningMean" in value && "numBatchesTracked" in value;
}

/**
 * Everything a batch norm remembers. A plain record: a spread copy with another `eps` is a valid state. Vectors have
 * shape (C), float32.
 */
export interface BatchNormState<A> {
  /** Number of channels C. */
  readonly numFeatures: number;
  /** Added to the variance before its root, in the square of the input's unit. */
  readonly eps: number;
  /**
   * Weight of the NEW batch in the running statistics, as in PyTorch: new = (1 - momentum) * old + momentum * observed.
   * null averages over all batches instead; a plain record lets the weight follow the counter.
   */
  readonly momentum: Momentum;
  /** Scale per channel, or null for none. */
  readonly weight: A | null;
  /** Offset per channel, or null for none. */
  readonly bias: A | null;
  /** Running mean, or null where nothing is tracked. */
  readonly runningMean: A | null;
  /** Running variance, or null where nothing is tracked. */
  readonly runningVar: A | null;
  /**
   * Which variance of a batch the running one follows: `"unbiased"`, m2 / (count - 1), as in PyTorch and where it is left
   * out; or `"biased"`, m2 / count, as in Keras and Flax.
   */
  readonly runningVariance?: "unbiased" | "biased";
  /** Batches that the running statistics have seen. */
  readonly numBatchesTracked: number;
}

/** Checks that a state is well-formed and lives on the device. */
export function checkState<A>(
  device: Describing<A>,
  state: BatchNormState<A>,
  action: string,
): void {
  checkConfiguration(state, action);
  checkVectors(state, (vector, name) => {
    const { length, dtype } = describe(device, vector, action, name);
    if (dtype === "float32") return length;
    throw refused(action, `${name} must be float32`, `dtype is ${dtype}`);
  }, action);
}

/** Checks that a state is well-formed as far as can be told without its device. */
export function checkStateRecord<V>(state: BatchNormState<V>, action: string): void {
  checkConfiguration(state, action);
  checkVectors(state, (vector, name) => {
    if (vector instanceof Float32Array) return vector.length;
    if (typeof vector === "object") return state.numFeatures;
    throw wrongKind(action, `${name} must be an array of a device, a Float32Array or null`, vector);
  }, action);
}

/** Checks that a state is well-formed and lies on the host. */
export function checkHostState(state: BatchNormState<Float32Array>, action: string): void {
  checkConfiguration(state, action);
  checkVectors(state, (vector, name) => {
    if (vector instanceof Float32Array) return vector.length;
    const wanted = `${name} must be a Float32Array or null, as stateToHost copies it from a device`;
    throw wrongKind(action, wanted, vector);
  }, action);
}

const VARIANCES = ["unbiased", "biased", undefined] as const;

/** Checks the numbers of a state. */
export function checkConfiguration(
  state: Pick<
    BatchNormState<unknown>,
    "numFeatures" | "eps" | "momentum" | "numBatchesTracked" | "runningVariance"
  >,
  action: string,
): void {
  if (typeof state !== "object" || state === null || !("numFeatures" in state)) {
    const came = `value is ${shown(state)}${mistaken(state)}`;
    throw refused(action, "the state must be a record as of initBatchNorm", came);
  }
  checkInteger(state.numFeatures, "numFeatures", action, 1);
  checkEps(state.eps, action);
  checkInteger(state.numBatchesTracked, "numBatchesTracked", action, 0);
  // A rule was checked by who made the state: here counts what it gives.
  if (state.momentum !== null) {
    const others = ", null for a cumulative average, or a record with a rule";
    const share = shareOf(state.momentum, state.numBatchesTracked + 1);
    checkShare(share, "momentum", action, others);
  }
  checkOneOf(state.runningVariance, VARIANCES, "runningVariance", action);
}

/** Checks what is added to a variance: a RangeError says what came. */
export function checkEps(eps: number, action: string, name = "eps"): void {
  if (Number.isFinite(eps) && eps >= 0) return;
  throw wrongValue(action, `${name} must be finite and >= 0`, eps);
}

/** Checks which vectors a state has, and their lengths. */
export function checkVectors<V>(
  state: BatchNormState<V>,
  lengthOf: (vector: V, name: string) => number,
  action: string,
): void {
  for (const name of ["weight", "bias", "runningMean", "runningVar"] as const) {
    const vector = state[name];
    if (vector === null) continue;
    const length = lengthOf(vector, name);
    if (length !== state.numFeatures) {
      const wanted = `the length of ${name} must be numFeatures`;
      throw wrongPair(action, wanted, length, state.numFeatures);
    }
  }
  if ((state.runningMean === null) !== (state.runningVar === null)) {
    const missing = state.runningMean === null ? "runningMean" : "runningVar";
    const wanted = "runningMean and runningVar must both be there or both be null";
    throw refused(action, wanted, `${missing} is null`);
  }
}
