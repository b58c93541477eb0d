/**
 * The network's numbers: one vector of parameters, and the batch norms that take theirs out of it.
 *
 * @module
 */

import { type BatchNormState, type Device, initBatchNorm, withParameters } from "../mod.ts";
import { type Block, BLOCKS, FEATURES, HEAD, HEAD_BIAS, LENGTH } from "./blocks.ts";
import type { Layers } from "./layers.ts";

/** A network's numbers. */
export interface Model<V, A> {
  /**
   * All parameters in one vector, so that replicas can exchange and compare them at once: kernel, scale and offset of
   * each block, then weight and bias of the linear layer.
   */
  readonly parameters: V;
  /** The batch norms, with their scale and offset out of `parameters`; null for a network without. */
  readonly norms: readonly BatchNormState<A>[] | null;
}

/**
 * A channel that hardly varies magnifies rounding by up to 1/sqrt(eps), and a batch of few images has many such
 * channels: 10 instead of the usual 316 keeps small batches comparable.
 */
export const EPS = 1e-2;

/**
 * Draws the first parameters: kernels and weights from a normal distribution (He et al. 2015, equation 10), scales 1,
 * offsets 0.
 *
 * @param random source of numbers in [0, 1)
 * @returns a vector as {@linkcode Model} describes it
 */
export function firstParameters(random: () => number): Float32Array {
  const parameters = new Float32Array(LENGTH);
  const draw = (from: number, to: number, fanIn: number) => {
    const deviation = Math.sqrt(2 / fanIn);
    for (let i = from; i < to; i++) parameters[i] = deviation * normal(random);
  };
  for (const { kernel, scale, inputs } of BLOCKS) {
    draw(...kernel, inputs);
    parameters.fill(1, ...scale);
  }
  draw(HEAD, HEAD_BIAS, FEATURES);
  return parameters;
}

/** Makes the batch norms that belong to {@linkcode firstParameters}. */
export function firstNorms<A>(device: Device<A>): readonly BatchNormState<A>[] {
  return BLOCKS.map(({ channels }) => initBatchNorm(device, channels, { eps: EPS }));
}

/** Gives the batch norms the scales and offsets that stand among the parameters. */
export function withScales<V, A>(
  norms: readonly BatchNormState<A>[],
  parameters: V,
  layers: Layers<V, A>,
): readonly BatchNormState<A>[] {
  const vector = (range: Block["scale"], channels: number): A =>
    layers.toTensor(layers.slice(parameters, ...range), [1, channels]).data;
  return norms.map((state, i) => {
    const { scale, offset, channels } = BLOCKS[i];
    return withParameters(state, {
      weight: vector(scale, channels),
      bias: vector(offset, channels),
    });
  });
}

/** A draw from the standard normal distribution (Box and Muller 1958). */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
