/**
 * The arithmetic of the layers as launches of WGSL kernels.
 *
 * @module
 */

import type { GpuBinding } from "../kernels/webgpu_device.ts";
import { type Arithmetic, sideAfter, unfolded, type WindowShape } from "./layers.ts";
import type { Launches } from "./webgpu_launches.ts";
import { CROSS_ENTROPY } from "./wgsl/cross_entropy.ts";
import { ADD_BIAS, DESCEND, GATE, PICK_ROWS, RELU } from "./wgsl/elements.ts";
import { type Kernel, LANES, WORKGROUP } from "./wgsl/kernel.ts";
import { COLUMN_SUMS, LINEAR, LINEAR_GRAD_INPUT, LINEAR_GRAD_WEIGHT } from "./wgsl/linear.ts";
import { FOLD, UNFOLD } from "./wgsl/windows.ts";

/** What kernels need: launches, and vectors to read from and write to. */
export interface Workshop {
  readonly launches: Pick<Launches, "add">;
  /** A new vector of so many elements, whatever they are. */
  readonly allocate: (length: number) => GpuBinding;
  /** A new vector of these elements. */
  readonly upload: (values: Float32Array) => GpuBinding;
}

/**
 * Makes the arithmetic of the layers on a GPU.
 *
 * @param workshop what kernels need
 * @returns functions that return at once, with vectors that hold their numbers from the next submit on
 */
export function webgpuArithmetic(workshop: Workshop): Arithmetic<GpuBinding> {
  const { launches, allocate, upload } = workshop;
  /** Launches a kernel that makes one vector, with some invocations for each element. */
  const launch = (
    kernel: Kernel,
    inputs: readonly GpuBinding[],
    length: number,
    parameters: readonly number[] = [],
    lanes = 1,
  ): GpuBinding => {
    const output = allocate(length);
    launches.add({
      ...{ kernel, inputs, outputs: [output], parameters: Uint32Array.from(parameters) },
      workgroups: Math.ceil(length * lanes / WORKGROUP),
    });
    return output;
  };
  return Object.freeze<Arithmetic<GpuBinding>>({
    linear: (x, weight, { rows, inputs, outputs }) =>
      launch(LINEAR, [x, weight], rows * outputs, [inputs, outputs]),
    linearGradWeight: (x, dy, { rows, inputs, outputs }) =>
      launch(LINEAR_GRAD_WEIGHT, [x, dy], outputs * inputs, [rows, inputs, outputs], LANES),
    linearGradInput: (dy, weight, { rows, inputs, outputs }) =>
      launch(LINEAR_GRAD_INPUT, [dy, weight], rows * inputs, [inputs, outputs]),
    columnSums: (matrix, rows, columns) =>
      launch(COLUMN_SUMS, [matrix], columns, [rows, columns], LANES),
    pickRows: (matrix, numbers, columns) => {
      const order = upload(Float32Array.from(numbers));
      return launch(PICK_ROWS, [matrix, order], numbers.length * columns, [columns]);
    },
    unfold: (x, shape) => launch(UNFOLD, [x], unfolded(shape), extents(shape)),
    fold: (rows, shape) => {
      const { images, side, channels } = shape;
      return launch(FOLD, [rows], images * side ** 2 * channels, extents(shape));
    },
    addBias: (x, bias, columns) => launch(ADD_BIAS, [x, bias], x.size / 4, [columns]),
    relu: (x) => launch(RELU, [x], x.size / 4),
    gate: (dy, output) => launch(GATE, [dy, output], dy.size / 4),
    crossEntropy: (logits, labels, images, classes) => {
      const [scores, gradLogits] = [allocate(images * 2), allocate(images * classes)];
      launches.add({
        kernel: CROSS_ENTROPY,
        inputs: [logits, labels],
        outputs: [scores, gradLogits],
        parameters: Uint32Array.of(images, classes),
        workgroups: Math.ceil(images / WORKGROUP),
      });
      return Object.freeze({ scores, gradLogits });
    },
    descend: ({ parameters, velocity }, gradient, { rate, momentum }) => {
      const length = parameters.size / 4;
      const [moved, faster] = [allocate(length), allocate(length)];
      launches.add({
        kernel: DESCEND,
        inputs: [parameters, velocity, upload(Float32Array.from(gradient))],
        outputs: [moved, faster],
        // Float32 by their bits.
        parameters: new Uint32Array(Float32Array.of(rate, momentum).buffer),
        workgroups: Math.ceil(length / WORKGROUP),
      });
      return Object.freeze({ parameters: moved, velocity: faster });
    },
  });
}

function extents({ side, channels, stride }: WindowShape): readonly number[] {
  return [side, channels, stride, sideAfter(side, stride)];
}
