/** Activations: what may follow a normalization in the same pass, and what backward knows of it. */

import { fromHalf, toHalf } from "./bits.ts";
import type { DType, Tensor } from "./tensor.ts";

/** A ReLU with a slope below 0 or a bound above, as Keras's `ReLU` layer has them. */
export interface Rectifier {
  /** What negative numbers are multiplied by: finite and >= 0; 0 by default. 0.01 is PyTorch's LeakyReLU. */
  readonly negativeSlope?: number;
  /** What results are at most: finite and > 0; without a bound by default. 6 is PyTorch's ReLU6. */
  readonly maxValue?: number;
}

/** What may be applied last: y = max(z, 0), or by a {@linkcode Rectifier} y = z <= 0 ? negativeSlope * z : min(z, maxValue). */
export type Activation = "relu" | Rectifier;

/** An output and what it was made by, which tells where and how far gradients pass. */
export interface Rectified<A> extends Tensor<A> {
  /** The activation of forward. */
  readonly activation: Activation;
}

/** Both bounds of an activation. */
export type Bounds = Required<Rectifier>;

const RELU: Bounds = /* @__PURE__ */ Object.freeze({ negativeSlope: 0, maxValue: Infinity });

/** The bounds of an activation whose results are stored as a dtype, as which they are compared. */
export function boundsOf(activation: Activation, dtype: DType): Bounds {
  if (activation === "relu") return RELU;
  const { negativeSlope = 0, maxValue = Infinity } = activation;
  const stored = dtype === "float16" ? fromHalf(toHalf(maxValue)) : Math.fround(maxValue);
  return { negativeSlope: Math.fround(negativeSlope), maxValue: stored };
}

/** Whether an activation is plain ReLU, whatever it is called. */
export function isRelu({ negativeSlope, maxValue }: Bounds): boolean {
  return negativeSlope === 0 && maxValue === Infinity;
}

/** An output with the activation that it was made by. */
export function rectifiedBy<A>(activation: Activation, output: Tensor<A>): Rectified<A> {
  const kept = activation === "relu" ? activation : Object.freeze({ ...activation });
  return Object.freeze({ ...output, activation: kept });
}
