/**
 * What is to be normalised: how it is seen along its axis of channels, and what is checked of it.
 *
 * @module
 */

import { elements } from "../../tensor.ts";
import { listed, shown } from "../../words.ts";
import { checkAlive } from "./internals.ts";
import type { View } from "./kernels.ts";
import type { TensorFlow, TfTensor } from "./types.ts";

/** How a tensor is seen along an axis, and the check of it that waits for its turn. */
export function viewOf(
  tf: TensorFlow,
  x: TfTensor,
  axis: number,
  vectors: readonly (TfTensor | null)[],
  action: string,
): { readonly view: View; readonly check: () => void } {
  const shape = x?.shape ?? [];
  const at = axis < 0 ? axis + shape.length : axis;
  const channels = shape[at] ?? 0;
  const [before, after] = [elements(shape.slice(0, at)), elements(shape.slice(at + 1))];
  const view: View = after === 1 ? [before, channels] : [before, channels, after];
  return { view, check: () => checkInput(tf, x, at, vectors, action) };
}

function checkInput(
  tf: TensorFlow,
  x: TfTensor,
  at: number,
  vectors: readonly (TfTensor | null)[],
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
  vectors.forEach((vector, i) => {
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
