/**
 * The state of a batch norm: an immutable record, and what it must have on a device, on the host, or wherever it lies.
 *
 * @module
 */

import { describe, type Describing } from "./tensor.ts";
import { mistaken, shown } from "./words.ts";

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
   * null averages over all batches instead.
   */
  readonly momentum: number | null;
  /** Scale per channel, or null for none. */
  readonly weight: A | null;
  /** Offset per channel, or null for none. */
  readonly bias: A | null;
  /** Running mean, or null where nothing is tracked. */
  readonly runningMean: A | null;
  /** Running unbiased variance, or null where nothing is tracked. */
  readonly runningVar: A | null;
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
    throw new TypeError(`Cannot ${action} as ${name} must be float32: current dtype is ${dtype}`);
  }, action);
}

/** Checks that a state is well-formed as far as can be told without its device. */
export function checkStateRecord<V>(state: BatchNormState<V>, action: string): void {
  checkConfiguration(state, action);
  checkVectors(state, (vector, name) => {
    if (vector instanceof Float32Array) return vector.length;
    if (typeof vector === "object") return state.numFeatures;
    throw new TypeError(
      `Cannot ${action} as ${name} must be an array of a device, a Float32Array or null: ` +
        `current value is ${shown(vector)}`,
    );
  }, action);
}

/** Checks the numbers of a state. */
export function checkConfiguration(
  state: Pick<BatchNormState<unknown>, "numFeatures" | "eps" | "momentum" | "numBatchesTracked">,
  action: string,
): void {
  if (typeof state !== "object" || state === null || !("numFeatures" in state)) {
    throw new TypeError(
      `Cannot ${action} as the state must be a record as of initBatchNorm: current value is ${
        shown(state)
      }${mistaken(state)}`,
    );
  }
  const { numFeatures, eps, momentum, numBatchesTracked } = state;
  if (!Number.isSafeInteger(numFeatures) || numFeatures < 1) {
    throw new RangeError(
      `Cannot ${action} as numFeatures must be an integer >= 1: current value is ${
        shown(numFeatures)
      }`,
    );
  }
  checkEps(eps, action);
  if (momentum !== null && !(typeof momentum === "number" && momentum >= 0 && momentum <= 1)) {
    throw new RangeError(
      `Cannot ${action} as momentum must be in [0, 1], or null for a cumulative average: ` +
        `current value is ${shown(momentum)}`,
    );
  }
  if (!Number.isSafeInteger(numBatchesTracked) || numBatchesTracked < 0) {
    throw new RangeError(
      `Cannot ${action} as numBatchesTracked must be an integer >= 0: ` +
        `current value is ${shown(numBatchesTracked)}`,
    );
  }
}

/** Checks that eps is a number, finite and >= 0: a RangeError says what came. */
export function checkEps(eps: number, action: string): void {
  if (Number.isFinite(eps) && eps >= 0) return;
  throw new RangeError(
    `Cannot ${action} as eps must be finite and >= 0: current value is ${shown(eps)}`,
  );
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
      throw new TypeError(
        `Cannot ${action} as the length of ${name} must be numFeatures: ` +
          `current values are ${length} and ${state.numFeatures}`,
      );
    }
  }
  if ((state.runningMean === null) !== (state.runningVar === null)) {
    const missing = state.runningMean === null ? "runningMean" : "runningVar";
    throw new TypeError(
      `Cannot ${action} as runningMean and runningVar must both be there or both be null: ` +
        `current ${missing} is null`,
    );
  }
}

/** Checks that a state is well-formed and lies on the host. */
export function checkHostState(state: BatchNormState<Float32Array>, action: string): void {
  checkState(HOST, state, action);
}

const HOST: Describing<Float32Array> = {
  describe(vector) {
    if (vector instanceof Float32Array) return { length: vector.length, dtype: "float32" };
    throw new TypeError(
      `Cannot read the vector as it must be a Float32Array or null, as stateToHost copies it ` +
        `from a device: current value is ${vector}`,
    );
  },
};
