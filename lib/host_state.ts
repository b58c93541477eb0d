/**
 * States whose vectors lie on the host, for what is computed without a device.
 *
 * @module
 */

import { type BatchNormState, checkState } from "./state.ts";
import type { Describing } from "./tensor.ts";

/**
 * Checks that a state is well-formed and lies on the host.
 *
 * @param state the state to check
 * @param action what the caller was about to do, for the message
 * @throws TypeError or RangeError that says what does not fit
 */
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
