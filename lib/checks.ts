/**
 * What every call is checked for before anything is launched.
 *
 * @module
 */

import type { CollectiveOptions, ProcessGroup, ReduceGroup } from "./collectives.ts";
import type { Device, DeviceInfo } from "./device.ts";
import { CollectiveError } from "./errors.ts";
import { checkState } from "./check_state.ts";
import type { BatchNormState } from "./state.ts";
import { checkTensor, describe, type Describing, type Tensor } from "./tensor.ts";
import { shown } from "./words.ts";

/**
 * Checks that the effects hold a device.
 *
 * @param effects the record that a function was given
 * @param action what the caller was about to do, for the message
 * @returns the record
 * @throws TypeError that says what an effects record looks like
 */
export function checkDevice<E extends { readonly device: { readonly info: DeviceInfo } }>(
  effects: E,
  action: string,
): E {
  if (typeof effects?.device?.info === "object") return effects;
  throw new TypeError(
    `Cannot ${action} as effects must be { device }, with group or groups where ranks share: ` +
      `current value holds no device`,
  );
}

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
 * Tells whether a caller gives an array up.
 *
 * @param donate the option of that name
 * @param action what the caller was about to do, for the message
 * @returns whether it does
 * @throws TypeError for what is no boolean
 */
export function isDonated(donate: unknown, action: string): boolean {
  if (donate === undefined || typeof donate === "boolean") return donate === true;
  throw new TypeError(
    `Cannot ${action} as donate must be true, false or left out: current value is ${shown(donate)}`,
  );
}

/**
 * Checks that what a caller gives up is nothing that the same call borrows.
 *
 * @param given the tensor that is given up
 * @param borrowed the tensors and vectors that the call borrows, by their names
 * @param action what the caller was about to do, for the message
 * @param name what the caller calls the tensor, for the message
 * @throws TypeError that says what it is
 */
export function checkGivenUp<A>(
  given: Tensor<A>,
  borrowed: Readonly<Record<string, Tensor<A> | A | null | undefined>>,
  action: string,
  name: string,
): void {
  for (const [other, value] of Object.entries(borrowed)) {
    if (value !== given.data && (value as Tensor<A> | null | undefined)?.data !== given.data) {
      continue;
    }
    throw new TypeError(
      `Cannot ${action} as a donated ${name} must be nothing else that the call needs: ` +
        `current array is that of the ${other} too`,
    );
  }
}

/**
 * Checks that training is not told to give its input up.
 *
 * @param options those of the call, which have no such option
 * @param action what the caller was about to do, for the message
 * @throws TypeError that says what may be given up instead
 */
export function checkKept(options: object, action: string): void {
  const { donate } = options as { readonly donate?: unknown };
  if (donate === undefined || donate === false) return;
  throw new TypeError(
    `Cannot ${action} as training must keep its input, which backward needs: ` +
      `current value of donate is ${shown(donate)}; donate gradOutput to backward, ` +
      `or the input to evaluation`,
  );
}

/**
 * Checks that a vector is float32 and has one element per channel.
 *
 * @param device the device it must live on
 * @param vector the vector to check
 * @param channels number of channels C
 * @param action what the caller was about to do, for the message
 * @param name what the caller calls the vector, for the message
 * @throws TypeError that says what does not fit
 */
export function checkVector<A>(
  device: Describing<A>,
  vector: A,
  channels: number,
  action: string,
  name: string,
): void {
  const { length, dtype } = describe(device, vector, action, name);
  if (length === channels && dtype === "float32") return;
  throw new TypeError(
    `Cannot ${action} as ${name} must hold ${channels} float32 values: ` +
      `current array holds ${length} of ${dtype}`,
  );
}

/**
 * Checks the group of a synchronised call, and that the call is still wanted where no collective would ask.
 *
 * @param group the group
 * @param options with the signal of the call
 * @param action what the caller was about to do, for the message
 * @param needs the collective that the call needs, and where the caller gave the group, for the message
 * @returns the group
 * @throws TypeError or RangeError for what is no group, CollectiveError for a fired signal in a world of one
 */
export function checkGroup<G extends Pick<ReduceGroup, "worldSize">>(
  group: G,
  options: Pick<CollectiveOptions, "signal">,
  action: string,
  needs: { readonly collective?: keyof ProcessGroup; readonly name?: string } = {},
): G {
  const { collective = "allReduce", name = "effects.group" } = needs;
  if (typeof (group as Partial<ProcessGroup> | null | undefined)?.[collective] !== "function") {
    throw new TypeError(
      `Cannot ${action} as ${name} must be { worldSize, ${collective} }: current value holds ${
        Object.keys(group ?? {}).join(", ") || "nothing"
      }`,
    );
  }
  const { worldSize } = group;
  if (!Number.isSafeInteger(worldSize) || worldSize < 1) {
    throw new RangeError(
      `Cannot ${action} as the group's worldSize must be an integer >= 1: ` +
        `current value is ${worldSize}`,
    );
  }
  const signal = options?.signal;
  if (worldSize === 1 && signal?.aborted) {
    throw new CollectiveError(`Cannot ${action} as it was cancelled`, "cancelled", [0], {
      cause: signal.reason,
    });
  }
  return group;
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
 * Checks merged moments [count, mean C, m2 C] as a collective returned them.
 *
 * @param wire the array from the collective
 * @param channels number of channels C
 * @param action what the caller was about to do, for the message
 * @returns the count
 * @throws TypeError for another kind or length, RangeError for a count that is none, or is 1
 */
export function checkMoments(wire: Float64Array, channels: number, action: string): number {
  checkWire(wire, 1 + 2 * channels, action);
  const [count] = wire;
  if (!Number.isSafeInteger(count) || count < 0) {
    throw new RangeError(
      `Cannot ${action} as the count that allReduce resolves to must be an integer >= 0: ` +
        `current value is ${count}; it must fold with the combine that it is given`,
    );
  }
  checkCount(count, action);
  return count;
}

/**
 * Checks an array as a collective returned it.
 *
 * @param wire the array from the collective
 * @param length number of values that it must hold
 * @param action what the caller was about to do, for the message
 * @throws TypeError for another kind or length
 */
export function checkWire(wire: Float64Array, length: number, action: string): void {
  if (wire instanceof Float64Array && wire.length === length) return;
  throw new TypeError(
    `Cannot ${action} as allReduce must resolve to a Float64Array of ${length} values: ` +
      `current value is ${wire instanceof Float64Array ? `${wire.length} values long` : wire}`,
  );
}
