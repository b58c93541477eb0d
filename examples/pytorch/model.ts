/**
 * The page's model, and an optimiser's step on it.
 *
 * @module
 */

import * as bn from "../../mod.ts";
import type { Linear, Parameters } from "./linear.ts";

/** A linear layer of one's own, and one of the library's. */
export interface Model<A> {
  readonly linear: Linear;
  readonly norm: bn.BatchNormLayer<A>;
}

/** Gradients of a model. */
export interface Gradients<A> {
  readonly linear: Parameters<A>;
  readonly norm: Parameters<A | null>;
}

/**
 * Takes a step of gradient descent.
 *
 * @param device where the norm and the gradients live
 * @param model the model; it is not changed
 * @param gradients of all its parameters
 * @param rate how far, >= 0
 * @returns the next model
 */
export async function descend<A>(
  device: bn.Device<A>,
  { linear, norm }: Model<A>,
  gradients: Gradients<A>,
  rate: number,
): Promise<Model<A>> {
  const onHost = async (values: Float32Array<ArrayBuffer>, gradient: A) => {
    const slope = await device.download(gradient);
    return values.map((value, i) => value - rate * slope[i]);
  };
  const onDevice = (vector: A | null, gradient: A | null) =>
    vector === null || gradient === null ? vector : bn.addScaled(device, vector, gradient, -rate);
  const { state } = norm;
  return {
    linear: {
      ...linear,
      weight: await onHost(linear.weight, gradients.linear.weight),
      bias: await onHost(linear.bias, gradients.linear.bias),
    },
    norm: {
      ...norm,
      state: bn.withParameters(state, {
        weight: onDevice(state.weight, gradients.norm.weight),
        bias: onDevice(state.bias, gradients.norm.bias),
      }),
    },
  };
}

/**
 * Reads all numbers of a model: weights and biases, then the norm's running mean and variance.
 *
 * @param device where the norm lives
 * @param model the model
 * @returns plain numbers, one after the other
 */
export async function numbersOf<A>(
  device: bn.Device<A>,
  { linear, norm }: Model<A>,
): Promise<number[]> {
  const { weight, bias, runningMean, runningVar } = await bn.stateToHost(device, norm.state);
  const vectors = [linear.weight, linear.bias, weight, bias, runningMean, runningVar];
  return vectors.flatMap((vector) => [...vector ?? []]);
}
