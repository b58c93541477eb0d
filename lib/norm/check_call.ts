/** What a batch norm is checked for before anything is launched. */

import type { Activation, Rectifier } from "../activation.ts";
import { checkState } from "../check_state.ts";
import { checkInteger, checkOneOf, SWITCH } from "../check_value.ts";
import type { Device, PassOption } from "../device.ts";
import { DeviceError } from "../errors.ts";
import { checkOptions } from "../check_effects.ts";
import type { BatchNormState } from "../state.ts";
import { checkTensor, describe, type Describing, sameShape, type Tensor } from "../tensor.ts";
import { listed, refused, shown, wrongKind, wrongPair, wrongValue } from "../words.ts";

/** Checks what every function that normalizes is given. */
export function checkCall<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  options: { readonly activation?: Activation; readonly residual?: Tensor<A> },
  known: readonly string[],
  action: string,
): void {
  checkOptions(options, known, action);
  const { activation, residual } = options;
  checkState(device, state, action);
  checkTensor(device, input, action, "input");
  const { shape } = input;
  const channels = shape[1]; // A frozen array is slow to take apart.
  if (channels !== state.numFeatures) {
    const why = "a shape is logical (N, C, ...spatial) in both formats, not the memory order";
    const other = `${state.numFeatures} in shape (${shape.join(", ")}); ${why}`;
    throw wrongPair(action, "its channels must equal numFeatures", channels, other);
  }
  checkActivates(device, activation, action);
  if (residual === undefined) return;
  checkPass(device, "residual", action);
  checkAlike(device, residual, input, action, "residual");
}

const single = (value: unknown) => typeof value === "number" ? Math.fround(value) : NaN;

/** Checks that a value is an activation, or undefined. */
export function checkActivation(activation: unknown, action: string): void {
  if (activation === "relu" || activation === undefined) return;
  if (typeof activation !== "object" || activation === null) {
    const wanted = 'activation must be "relu", { negativeSlope, maxValue } or left out';
    throw wrongKind(action, wanted, activation);
  }
  checkOptions(activation, ["negativeSlope", "maxValue"], action);
  const { negativeSlope = 0, maxValue = 1 } = activation as Rectifier;
  if (!(single(negativeSlope) < Infinity && negativeSlope >= 0)) {
    throw wrongValue(action, "negativeSlope must be a finite float32 >= 0", negativeSlope);
  }
  if (single(maxValue) > 0 && single(maxValue) < Infinity) return;
  throw wrongValue(action, "maxValue must be a finite float32 > 0, or left out", maxValue);
}

/** Checks an activation, and that a device honours it. */
export function checkActivates<A>(
  device: Device<A>,
  activation: Activation | undefined,
  action: string,
): void {
  checkActivation(activation, action);
  if (activation === undefined) return;
  checkPass(device, "activation", action);
  if (activation !== "relu") checkPass(device, "rectifier", action);
}

/** Checks the samples of a ghost batch. */
export function checkGhost(ghost: unknown, action: string): void {
  checkInteger(ghost, "ghost, the samples of a group,", action, 1);
}

/** Checks that a device honours a field of a pass: what it cannot do is an error that names it. */
export function checkPass<A>({ info }: Device<A>, option: PassOption, action: string): void {
  if (info.passes.includes(option)) return;
  throw new DeviceError(
    `Cannot ${action} as ${info.name} must honour ${option} in a pass: ` +
      `current ones are ${info.passes.join(", ") || "none"}; leave it out, or use ${
        info.exact ? "a device without exact" : "another device"
      }`,
    "unsupported",
  );
}

/** Checks that a device rounds its statistics, for what computes with their numbers on the host. */
export function checkRounds<A>({ info }: Device<A>, action: string): void {
  if (!info.exact) return;
  throw new DeviceError(
    `Cannot ${action} as its statistics must be rounded numbers: ${info.name} has digits; use a device without exact`,
    "unsupported",
  );
}

/** Checks that a tensor has the shape and dtype of the input; its format is free. */
export function checkAlike<A>(
  device: Device<A>,
  tensor: Tensor<A>,
  input: Tensor<A>,
  action: string,
  name: string,
): void {
  checkTensor(device, tensor, action, name);
  const { shape, dtype } = input;
  if (!sameShape(tensor.shape, shape)) {
    const wanted = `the ${name}'s shape must be the input's`;
    throw wrongPair(action, wanted, listed(tensor.shape), listed(shape));
  }
  if (tensor.dtype === dtype) return;
  throw wrongPair(action, `the ${name}'s dtype must be the input's`, tensor.dtype, dtype);
}

/** Tells whether a caller gives an array up. */
export function isDonated(donate: unknown, action: string): boolean {
  checkOneOf(donate, SWITCH, "donate", action);
  return donate === true;
}

/** Checks that what a caller gives up is nothing that the same call borrows. */
export function checkGivenUp<A>(
  given: Tensor<A>,
  borrowed: Readonly<Record<string, Tensor<A> | A | null | undefined>>,
  action: string,
  name: string,
): void {
  for (const [other, value] of Object.entries(borrowed)) {
    const data = (value as Tensor<A> | null | undefined)?.data;
    if (value !== given.data && data !== given.data) continue;
    const wanted = `a donated ${name} must be nothing else that the call needs`;
    throw refused(action, wanted, `array is that of the ${other} too`);
  }
}

/** Checks that training is not told to give its input up. */
export function checkKept(options: object, action: string): void {
  const { donate } = options as { readonly donate?: unknown };
  if (donate === undefined || donate === false) return;
  throw new TypeError(
    `Cannot ${action} as training must keep its input, which backward needs: ` +
      `current value of donate is ${shown(donate)}; donate gradOutput to backward, ` +
      `or the input to evaluation`,
  );
}

/** Checks that a vector is float32 and has one element per channel. */
export function checkVector<A>(
  device: Describing<A>,
  vector: A,
  channels: number,
  action: string,
  name: string,
): void {
  const { length, dtype } = describe(device, vector, action, name);
  if (length === channels && dtype === "float32") return;
  const wanted = `${name} must hold ${channels} float32 values`;
  throw refused(action, wanted, `array holds ${length} of ${dtype}`);
}
