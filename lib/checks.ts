/**
 * What every call is checked for before anything is launched.
 *
 * @module
 */

import type { Device } from "./device.ts";
import { type BatchNormState, checkState } from "./state.ts";
import { checkTensor, type Tensor } from "./tensor.ts";

/**
 * Checks what every function that normalizes is given.
 *
 * @param device the device it shall run on
 * @param state the state
 * @param input the batch
 * @param options activation and residual
 * @param action what the caller was about to do, for the message
 * @throws TypeError or RangeError that says what does not fit
 */
export function checkCall<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  { activation, residual }: { readonly activation?: "relu"; readonly residual?: Tensor<A> },
  action: string,
): void {
  checkState(device, state, action);
  checkTensor(device, input, action, "input");
  const { shape: [, channels], shape } = input;
  if (channels !== state.numFeatures) {
    throw new TypeError(
      `Cannot ${action} as its channels must equal numFeatures: ` +
        `current values are ${channels} and ${state.numFeatures} in shape (${shape.join(", ")}); ` +
        `a shape is logical (N, C, ...spatial) in both formats, not the memory order`,
    );
  }
  if (activation !== undefined && activation !== "relu") {
    throw new TypeError(
      `Cannot ${action} as activation must be "relu" or left out: ` +
        `current value is ${JSON.stringify(activation)}`,
    );
  }
  if (residual !== undefined) checkAlike(device, residual, input, action, "residual");
}

/**
 * Checks that a tensor has the shape and dtype of the input; its format is free.
 *
 * @param device the device it must live on
 * @param tensor the tensor to check
 * @param input the tensor it must be like
 * @param action what the caller was about to do, for the message
 * @param name what the caller calls the tensor, for the message
 * @throws TypeError or RangeError that says what does not fit
 */
export function checkAlike<A>(
  device: Device<A>,
  tensor: Tensor<A>,
  input: Tensor<A>,
  action: string,
  name: string,
): void {
  checkTensor(device, tensor, action, name);
  const { shape, dtype } = input;
  if (tensor.shape.length !== shape.length || tensor.shape.some((d, i) => d !== shape[i])) {
    throw new TypeError(
      `Cannot ${action} as the ${name}'s shape must be the input's: ` +
        `current values are (${tensor.shape.join(", ")}) and (${shape.join(", ")})`,
    );
  }
  if (tensor.dtype !== dtype) {
    throw new TypeError(
      `Cannot ${action} as the ${name}'s dtype must be the input's: ` +
        `current values are ${tensor.dtype} and ${dtype}`,
    );
  }
}

/**
 * Checks that a batch has a variance: more than one value per channel, or none at all.
 *
 * @param count values per channel, over all ranks that share statistics
 * @param action what the caller was about to do, for the message
 * @throws RangeError for one value per channel
 */
export function checkCount(count: number, action: string): void {
  if (count !== 1) return;
  throw new RangeError(
    `Cannot ${action} as it needs more than 1 value per channel to have a variance: ` +
      `current number over all ranks is 1`,
  );
}

/**
 * Checks what a collective returned.
 *
 * @param wire the array from the collective
 * @param length the length it must have
 * @param action what the caller was about to do, for the message
 * @throws TypeError where it is no Float64Array of that length
 */
export function checkWire(wire: Float64Array, length: number, action: string): void {
  if (wire instanceof Float64Array && wire.length === length) return;
  throw new TypeError(
    `Cannot ${action} as allReduce must resolve to a Float64Array of ${length} values: ` +
      `current value is ${wire instanceof Float64Array ? `${wire.length} values long` : wire}`,
  );
}
