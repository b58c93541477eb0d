/**
 * What follows the affine map (residual, activation) and its way back, in one pass where the device can.
 *
 * @module
 */

import type { Affine, Device, Epilogue, GradientArrays, GradientSums } from "./device.ts";
import type { Statistics } from "./device.ts";
import { region } from "./ownership.ts";
import type { Format, Tensor } from "./tensor.ts";

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
  const { residual, relu } = epilogue;
  if (residual === null && !relu) {
    return tensorLike(input, device.normalize(input, statistics, affine));
  }
  if (device.fused) {
    return tensorLike(input, device.fused.normalize(input, statistics, affine, epilogue));
  }
  return region(device, (scope) => {
    let data = scope.normalize(input, statistics, affine);
    if (residual !== null) {
      data = scope.addScaled(data, scope.gate(residual, null, input.format), 1);
    }
    return tensorLike(input, relu ? scope.relu(data) : data);
  });
}

/** The gradient of the output on its way to the affine map. */
export interface Gated<A> {
  /** Gradient of the affine map's result, or of the output where `output` gates it still. */
  readonly gradOutput: Tensor<A>;
  /** Where it is not positive, `gradOutput` counts as 0; null where nothing gates. */
  readonly output: Tensor<A> | null;
  /** Gradient of the residual, in the residual's format, or null without one. */
  readonly gradResidual: Tensor<A> | null;
}

/**
 * Takes the gradient of the output back through the activation and the residual.
 *
 * @param device the device or a batch's handle on it
 * @param gradOutput gradient of the output
 * @param output the output where an activation was applied, else null
 * @param residualFormat memory order of the residual, or null where none was added
 * @returns the gradient that the affine map sees; the gate stays open work where the device can fuse it
 */
export function ungate<A>(
  device: Device<A>,
  gradOutput: Tensor<A>,
  output: Tensor<A> | null,
  residualFormat: Format | null,
): Gated<A> {
  if (residualFormat !== null) {
    const data = device.gate(gradOutput, output, residualFormat);
    const gradResidual = tensorLike({ ...gradOutput, format: residualFormat }, data);
    return { gradOutput: gradResidual, output: null, gradResidual };
  }
  if (output === null || device.fused) return { gradOutput, output, gradResidual: null };
  const data = device.gate(gradOutput, output, gradOutput.format);
  return { gradOutput: tensorLike(gradOutput, data), output: null, gradResidual: null };
}

/**
 * Sums what the gradient of the input needs over this rank's batch.
 *
 * @param device the device or a batch's handle on it
 * @param input the input of forward
 * @param statistics its statistics
 * @param gated gradient of the affine map's result
 * @returns (sumDy, sumDyXmu) per channel, in the device's own layout
 */
export function gradientSums<A>(
  device: Device<A>,
  input: Tensor<A>,
  statistics: Statistics<A>,
  { gradOutput, output }: Gated<A>,
): A {
  return output !== null && device.fused
    ? device.fused.gradientSums(input, gradOutput, statistics, output)
    : device.gradientSums(input, gradOutput, statistics);
}

/**
 * Computes the gradients of input, weight and bias.
 *
 * @param device the device or a batch's handle on it
 * @param input the input of forward
 * @param statistics its statistics
 * @param affine weight, bias and eps of forward
 * @param gated gradient of the affine map's result
 * @param sums sums over this rank and over all ranks
 * @returns the gradients, as bare arrays
 */
export function gradients<A>(
  device: Device<A>,
  input: Tensor<A>,
  statistics: Statistics<A>,
  affine: Affine<A>,
  { gradOutput, output }: Gated<A>,
  sums: GradientSums<A>,
): GradientArrays<A> {
  return output !== null && device.fused
    ? device.fused.gradients(input, gradOutput, statistics, sums, affine, output)
    : device.gradients(input, gradOutput, statistics, sums, affine);
}

/**
 * Gives an array the meaning of another tensor.
 *
 * @param like the tensor whose shape, dtype and format apply
 * @param data the elements
 * @returns a frozen tensor
 */
export function tensorLike<A>({ shape, dtype, format }: Tensor<A>, data: A): Tensor<A> {
  return Object.freeze({ data, shape: Object.freeze([...shape]), dtype, format });
}
