/** An optimiser's step on parameters that stay on their device. */

import { checkConfiguration } from "./check_state.ts";
import type { Device } from "./device.ts";
import type { BatchNormState } from "./state.ts";
import { describe } from "./tensor.ts";
import { mistaken, wrongPair, wrongValue } from "./words.ts";

/**
 * Replaces the weight, the bias or both, for an optimiser's step or for one call (conditional batch norm).
 *
 * @param state the state to start from; it is not changed
 * @param parameters the new vectors, shape (C), float32; null for none, left out for the old one
 * @returns a frozen state that shares everything else with the old one
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
  checkConfiguration(state, "replace the parameters");
  const { weight = state.weight, bias = state.bias } = parameters;
  return Object.freeze({ ...state, weight, bias });
}

/**
 * Computes x + scale * y element by element.
 *
 * @param device the device that both live on
 * @param x an array of any length and dtype
 * @param y another of the same length
 * @param scale a finite factor, such as minus the learning rate
 * @returns a new array in the dtype of x
 * @throws TypeError where the lengths differ or an array is not live, RangeError where scale is not finite
 *
 * @example
 * ```ts
 * import { addScaled, referenceDevice } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const [x, y] = [device.upload(Float32Array.of(1, 2)), device.upload(Float32Array.of(4, 8))];
 * const z = addScaled(device, x, y, -0.25);
 * assert.deepEqual(await device.download(z), Float32Array.of(0, 0));
 * ```
 */
export function addScaled<A>(
  device: Pick<Device<A>, "describe" | "addScaled">,
  x: A,
  y: A,
  scale: number,
): A {
  const [lengthX, lengthY] = [x, y].map((array) => {
    const advice = mistaken(array);
    return describe(
      device,
      array,
      "add the arrays",
      advice ? `what is no array${advice}` : "one of them",
    ).length;
  });
  if (lengthX !== lengthY) {
    throw wrongPair("add the arrays", "their lengths must be equal", lengthX, lengthY);
  }
  if (!Number.isFinite(scale)) throw wrongValue("add the arrays", "scale must be finite", scale);
  return device.addScaled({ x, y, scale });
}
