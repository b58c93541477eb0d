/**
 * What follows the affine map (residual, activation) and its way back, in one pass where the device can.
 *
 * @module
 */

import type {
  Affine,
  Device,
  Epilogue,
  GradientArrays,
  GradientSums,
  Prologue,
  Statistics,
} from "./device.ts";
import { region } from "./ownership.ts";
import type { Tensor } from "./tensor.ts";

/** Gradients of one rank. Those of weight and bias are of this rank's part of the batch alone. */
export interface Backward<A> {
  /** Gradient of the input, in the input's shape, dtype and format. */
  readonly gradInput: Tensor<A>;
  /** Gradient of the weight, shape (C), float32; zeros for an empty batch; null where there was no weight. */
  readonly gradWeight: A | null;
  /** Gradient of the bias, shape (C), float32; zeros for an empty batch; null where there was no bias. */
  readonly gradBias: A | null;
  /** Gradient of the residual, in its shape, dtype and format; missing where there was none. */
  readonly gradResidual?: Tensor<A>;
}

/**
 * Normalizes with given statistics, then adds the residual and applies the activation.
 *
 * @param device the device or a batch's handle on it
 * @param input the checked batch
 * @param statistics the statistics to normalize with
 * @param affine weight, bias and eps
 * @param epilogue what follows
 * @returns a frozen tensor in the input's shape, dtype and format
 */
export function normalize<A>(
  device: Device<A>,
  input: Tensor<A>,
  statistics: Statistics<A>,
  affine: Affine<A>,
  epilogue: Epilogue<A>,
): Tensor<A> {
  const { residual, relu, overwrite } = epilogue;
  const follows = residual !== null || relu;
  // Only a fused operation is told that it may overwrite; without one the input is not written to.
  if (device.fused && (follows || overwrite)) {
    return tensorLike(input, device.fused.normalize(input, statistics, affine, epilogue));
  }
  if (!follows) return tensorLike(input, device.normalize(input, statistics, affine));
  return region(device, (scope) => {
    let data = scope.normalize(input, statistics, affine);
    if (residual !== null) {
      data = scope.addScaled(data, scope.gate(residual, null, input.format), 1);
    }
    return tensorLike(input, relu ? scope.relu(data) : data);
  });
}

/** The gradient of the output, and what still stands between it and the affine map. */
export interface Gated<A> {
  /** Gradient of the output, or of the affine map's result where the prologue is done. */
  readonly gradOutput: Tensor<A>;
  /** What a fused device does in the same pass; null where it is done or there was nothing to do. */
  readonly prologue: Prologue<A> | null;
  /** Gradient of the residual, in the residual's format; null without one, or while the prologue is to be done. */
  readonly gradResidual: Tensor<A> | null;
}

/**
 * Takes the gradient of the output back through the activation and the residual, or leaves it to a device that fuses.
 *
 * @param device the device or a batch's handle on it
 * @param gradOutput gradient of the output
 * @param prologue forward's epilogue, and whether gradOutput is given up
 * @returns what {@linkcode gradientSums} and {@linkcode gradients} take
 */
export function ungate<A>(
  device: Device<A>,
  gradOutput: Tensor<A>,
  prologue: Prologue<A>,
): Gated<A> {
  const { output, residualFormat, overwrite } = prologue;
  const precedes = output !== null || residualFormat !== null;
  if (device.fused && (precedes || overwrite)) return { gradOutput, prologue, gradResidual: null };
  if (!precedes) return { gradOutput, prologue: null, gradResidual: null };
  const format = residualFormat ?? gradOutput.format;
  const data = device.gate(gradOutput, output, format);
  const gated = tensorLike({ ...gradOutput, format }, data);
  return { gradOutput: gated, prologue: null, gradResidual: residualFormat && gated };
}

/**
 * Says what a pass back through the epilogue has made beside its results.
 *
 * @param gated what {@linkcode ungate} returned
 * @param given the gradient that it was given
 * @returns arrays to free once the gradients are computed
 */
export function scratchOf<A>(
  { gradOutput: { data }, gradResidual }: Gated<A>,
  given: Tensor<A>,
): A[] {
  return data === given.data || data === gradResidual?.data ? [] : [data];
}

/**
 * Sums what the gradient of the input needs over this rank's batch.
 *
 * @param device the device or a batch's handle on it
 * @param input the input of forward
 * @param statistics its statistics
 * @param gated gradient of the output
 * @returns (sumDy, sumDyXmu) per channel, in the device's own layout
 */
export function gradientSums<A>(
  device: Device<A>,
  input: Tensor<A>,
  statistics: Statistics<A>,
  { gradOutput, prologue }: Gated<A>,
): A {
  return prologue !== null && device.fused
    ? device.fused.gradientSums(input, gradOutput, statistics, prologue)
    : device.gradientSums(input, gradOutput, statistics);
}

/**
 * Computes the gradients of input, weight, bias and residual.
 *
 * @param device the device or a batch's handle on it
 * @param input the input of forward
 * @param statistics its statistics
 * @param affine weight, bias and eps of forward
 * @param gated gradient of the output
 * @param sums sums over this rank and over all ranks
 * @returns a frozen record
 */
export function gradients<A>(
  device: Device<A>,
  input: Tensor<A>,
  statistics: Statistics<A>,
  affine: Affine<A>,
  gated: Gated<A>,
  sums: GradientSums<A>,
): Backward<A> {
  const { gradOutput, prologue } = gated;
  if (prologue === null || !device.fused) {
    const arrays = device.gradients(input, gradOutput, statistics, sums, affine);
    return backwardOf(input, arrays, gated.gradResidual);
  }
  const { gradResidual, ...arrays } = device.fused.gradients(
    input,
    gradOutput,
    statistics,
    sums,
    affine,
    prologue,
  );
  const format = prologue.residualFormat;
  const residual = format && gradResidual !== null
    ? tensorLike({ ...gradOutput, format }, gradResidual)
    : null;
  return backwardOf(input, arrays, residual);
}

function backwardOf<A>(
  input: Tensor<A>,
  { gradInput, gradWeight, gradBias }: GradientArrays<A>,
  gradResidual: Tensor<A> | null,
): Backward<A> {
  return Object.freeze({
    gradInput: tensorLike(input, gradInput),
    gradWeight,
    gradBias,
    ...(gradResidual !== null && { gradResidual }),
  });
}

/**
 * Gives an array the meaning of another tensor.
 *
 * @param like the tensor whose shape, dtype and format apply
 * @param data the elements
 * @returns a frozen tensor
 */
export function tensorLike<A>({ shape, dtype, format }: Tensor<A>, data: A): Tensor<A> {
  const own = Object.isFrozen(shape) ? shape : Object.freeze([...shape]);
  return Object.freeze({ data, shape: own, dtype, format });
}
