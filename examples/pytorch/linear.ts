/**
 * A linear layer of one's own beside the library's: a plain record on the host, and arithmetic in plain loops.
 *
 * @module
 */

import * as bn from "../../mod.ts";
import { randn } from "./data.ts";

/** Weight and bias of y = x * weight + bias, or their gradients. */
export interface Parameters<V> {
  /** Shape (inputs, outputs), float32. */
  readonly weight: V;
  /** Shape (outputs), float32. */
  readonly bias: V;
}

/** The layer; its kind is none of the library's, which leaves it alone. */
export interface Linear extends Parameters<Float32Array<ArrayBuffer>> {
  /** Sets it apart from other nodes of a model. */
  readonly kind: "linear";
}

/**
 * Makes a layer.
 *
 * @param inputs values of a row
 * @param outputs values of a row afterwards
 * @returns the layer, frozen: the same seeded normal weights of variance 1 / inputs each time, and bias 0
 */
export function initLinear(inputs: number, outputs: number): Linear {
  const weight = randn([inputs, outputs], 2).map((value) => value / Math.sqrt(inputs));
  return Object.freeze({ kind: "linear", weight, bias: new Float32Array(outputs) });
}

/**
 * Applies a layer.
 *
 * @param device where the result shall live
 * @param layer its weight and bias
 * @param x rows on the host, shape (N, inputs)
 * @returns a tensor of shape (N, outputs), added up in float64
 */
export function linear<A>(
  device: bn.Device<A>,
  { weight, bias }: Linear,
  x: Float32Array,
): bn.Tensor<A> {
  const { outputs, inputs, rows } = extents(bias, weight, x);
  const y = new Float32Array(rows * outputs);
  for (let at = 0; at < y.length; at++) {
    const [row, column] = [Math.floor(at / outputs), at % outputs];
    let total = bias[column];
    for (let i = 0; i < inputs; i++) total += x[row * inputs + i] * weight[i * outputs + column];
    y[at] = total;
  }
  return bn.tensor(device, y, [rows, outputs]);
}

/**
 * Computes the gradients of weight and bias.
 *
 * @param device where the gradients shall live
 * @param layer as in {@linkcode linear}
 * @param x rows on the host, shape (N, inputs)
 * @param gradOutput gradient of the result, shape (N, outputs)
 * @returns arrays of the device, added up in float64
 */
export async function linearGradients<A>(
  device: bn.Device<A>,
  { weight, bias }: Linear,
  x: Float32Array,
  gradOutput: bn.Tensor<A>,
): Promise<Parameters<A>> {
  const { outputs, inputs, rows } = extents(bias, weight, x);
  const dy = await bn.toArray(device, gradOutput);
  const overRows = (term: (row: number) => number): number => {
    let total = 0;
    for (let row = 0; row < rows; row++) total += term(row);
    return total;
  };
  const gradWeight = weight.map((_, at) => {
    const [i, column] = [Math.floor(at / outputs), at % outputs];
    return overRows((row) => x[row * inputs + i] * dy[row * outputs + column]);
  });
  const gradBias = bias.map((_, column) => overRows((row) => dy[row * outputs + column]));
  return { weight: device.upload(gradWeight), bias: device.upload(gradBias) };
}

function extents(bias: Float32Array, weight: Float32Array, x: Float32Array) {
  const outputs = bias.length;
  const inputs = weight.length / outputs;
  return { outputs, inputs, rows: x.length / inputs };
}
