/**
 * What is checked of what is to be normalised.
 *
 * @module
 */

import { listed, shown } from "../../words.ts";
import { checkAlive } from "./internals.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";
import { axisOf } from "./view.ts";

/** What is normalised. */
export interface NormInput {
  readonly x: TfTensor;
  readonly gamma: TfTensor | null;
  readonly beta: TfTensor | null;
  readonly axis: number;
  readonly epsilon: number;
}

/** Checks what is to be normalised along an axis, and by which vectors. */
export function checkInput(
  tf: TensorFlow,
  { x, gamma, beta, axis }: Pick<NormInput, "x" | "gamma" | "beta" | "axis">,
  action: string,
): void {
  const { shape, dtype } = x ?? {};
  if (!Array.isArray(shape)) {
    throw new TypeError(`Cannot ${action} as x must be a tf.Tensor: current value is ${shown(x)}`);
  }
  checkAlive(tf, x, "x", action);
  if (dtype !== "float32") {
    throw new TypeError(
      `Cannot ${action} as x must be of dtype "float32": current value is ${shown(dtype)}; ` +
        `cast it by tf.cast(x, "float32")`,
    );
  }
  const at = axisOf(shape, axis);
  if (!Number.isInteger(at) || at < 0 || at >= shape.length || shape.length < 2) {
    throw new RangeError(
      `Cannot ${action} as axis must be one of a tensor of rank >= 2: current shape is ${
        listed(shape)
      }, and axis ${at}`,
    );
  }
  const channels = shape[at];
  if (channels === 0) {
    throw new RangeError(
      `Cannot ${action} as there must be at least one channel: current shape is ${
        listed(shape)
      }, and axis ${at}`,
    );
  }
  [gamma, beta].forEach((vector, i) => {
    const name = ["gamma", "beta"][i];
    if (vector === null) return;
    if (vector.shape?.length === 1 && vector.shape[0] === channels) {
      return checkAlive(tf, vector, name, action);
    }
    throw new TypeError(
      `Cannot ${action} as ${name} must be of shape (${channels}), or null: current value is ${
        Array.isArray(vector.shape) ? `of shape ${listed(vector.shape)}` : shown(vector)
      }`,
    );
  });
}
