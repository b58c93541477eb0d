/**
 * One batch norm of tfjs's over a group that holds up the thread, with exact gradients through the collective.
 *
 * @module
 */

import { checkGroup, checkOptions } from "../../check_effects.ts";
import type { BlockingGroup } from "../../collectives.ts";
import type { Device } from "../../device.ts";
import { elements } from "../../tensor.ts";
import { checkWire, momentsWire, sumsWire } from "../../wire.ts";
import { listed, mistaken, shown } from "../../words.ts";
import { deviceKernels, type ReadableArray } from "./device_kernels.ts";
import { checkAlive, tensorFlowOf } from "./internals.ts";
import { meanAndVariance, type NormKernels, type Reduce, tfKernels, type View } from "./kernels.ts";
import { reduced, tell } from "./reduce.ts";
import type { TensorFlow, TensorFlowLike, TfTensor } from "./types.ts";

/** What a batch norm is scaled and shifted by: vectors over the channels, float32; null or left out for none. */
export interface NormParameters {
  /** Scale, shape (C). */
  readonly gamma?: TfTensor | null;
  /** Offset, shape (C). */
  readonly beta?: TfTensor | null;
}

/** Options of {@linkcode syncBatchNorm}. */
export interface SyncNormOptions<A extends ReadableArray> {
  /** The axis of the channels, negative from the end; -1 by default. */
  readonly axis?: number;
  /** Added to the variance; 1e-3 by default, as in Keras. */
  readonly epsilon?: number;
  /**
   * Computes in place of TensorFlow.js's own kernels: one of `wasmDevice()`, which stays yours. Left out, TensorFlow.js's
   * backend does.
   */
  readonly device?: Device<A>;
  /** What the ranks compare, for messages. */
  readonly label?: string;
}

/** What a synchronised batch norm gives. */
export interface SyncNorm<X, T> {
  /** The normalised input, in its shape. */
  readonly y: X;
  /** Mean of all ranks' rows, shape (C). */
  readonly mean: T;
  /** Biased variance of all ranks' rows, shape (C). */
  readonly variance: T;
  /** Values per channel over all ranks. */
  readonly count: number;
}

const ACTION = "normalize the batch";
const OPTIONS = ["axis", "epsilon", "device", "label"];

/**
 * Normalizes this rank's part of a batch with the statistics of all ranks, in TensorFlow.js: y = (x - mean) /
 * sqrt(variance + epsilon) * gamma + beta, over every axis but the one of the channels.
 *
 * To be called within `tf.variableGrads`, `tf.grads` or a layer. Gradients of x are exact, through the collective; those of
 * gamma and beta are of this rank's rows alone, as those of all other parameters are, and are summed with them. There is
 * one collective forward and one backward, which hold up the thread: ranks are workers with `wait: "block"`, or MPI
 * processes. The first derivative alone is defined. A batch of one value per channel has variance 0, as in Keras.
 *
 * @param tf TensorFlow.js, `import * as tf from "@tensorflow/tfjs"`
 * @param x this rank's rows, float32, any rank from 2 on; may be empty
 * @param parameters gamma and beta
 * @param group the ranks; one with `worldSize` 1 calls no collective
 * @param options axis, epsilon, device, label
 * @returns y, and the statistics, whose tensors are the caller's (in `tf.tidy` they go with it)
 * @throws CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: a TypeError for a tensor
 * of another dtype or one that was disposed of), did something else, or did not arrive; TypeError where the group or this
 * thread cannot be held up
 *
 * @example Gradients of a loss over one rank
 * ```ts ignore
 * import * as tf from "@tensorflow/tfjs";
 * import { inProcessGroup } from "@syncbn/syncbn";
 * import { syncBatchNorm } from "@syncbn/syncbn/tfjs";
 *
 * const [group] = inProcessGroup(1);
 * const dx = tf.grad((x) => syncBatchNorm(tf, x, {}, group).y.square().sum())(tf.randomNormal([8, 4]));
 * ```
 */
export function syncBatchNorm<
  F extends TensorFlowLike,
  X extends TfTensor,
  A extends ReadableArray = ReadableArray,
>(
  tf: F,
  x: X,
  parameters: NormParameters,
  group: BlockingGroup,
  options: SyncNormOptions<A> = {},
): SyncNorm<X, ReturnType<F["tensor"]>> {
  const framework = tensorFlowOf(tf, ACTION);
  checkGroup(group, {}, ACTION, { collective: "allReduceBlocking", name: "the group" });
  checkOptions(options, OPTIONS, ACTION);
  const { gamma = null, beta = null } = parameters ?? {};
  const { axis = -1, epsilon = 1e-3, device, label = "" } = options;
  const kernels = kernelsOf(framework, device);
  const place = { label, counted: true };
  const given = { x, gamma, beta, axis, epsilon };
  const { y, mean, variance, count } = normalizeOver(framework, given, { kernels, group, place });
  const [channels] = [mean.length];
  const tensors = [mean, variance].map((values) => framework.tensor(values, [channels]));
  return { y, mean: tensors[0], variance: tensors[1], count } as unknown as SyncNorm<
    X,
    ReturnType<F["tensor"]>
  >;
}

/** The kernels that a device stands for. */
export function kernelsOf<A extends ReadableArray>(
  tf: TensorFlow,
  device: Device<A> | undefined,
): NormKernels {
  if (device === undefined) return tfKernels(tf);
  if (typeof device?.upload === "function" && typeof device.moments === "function") {
    return deviceKernels(tf, device);
  }
  throw new TypeError(
    `Cannot ${ACTION} as device must be one of wasmDevice(), or left out: current value is ${
      shown(device)
    }${mistaken(device)}`,
  );
}

/** What is normalised. */
export interface NormInput {
  readonly x: TfTensor;
  readonly gamma: TfTensor | null;
  readonly beta: TfTensor | null;
  readonly axis: number;
  readonly epsilon: number;
}

/** How and with whom. */
export interface NormEffects {
  readonly kernels: NormKernels;
  readonly group: BlockingGroup;
  /** What the ranks compare, and whether this rank's rows count. */
  readonly place: { readonly label: string; readonly counted: boolean };
}

/** A batch norm over a group, with statistics on the host. */
export function normalizeOver(
  tf: TensorFlow,
  { x, gamma, beta, axis, epsilon }: NormInput,
  { kernels, group, place: { label, counted } }: NormEffects,
): {
  readonly y: TfTensor;
  readonly mean: Float32Array;
  readonly variance: Float32Array;
  readonly count: number;
} {
  const { view, check } = viewOf(tf, x, axis, [gamma, beta]);
  const channels = view[1];
  const named = (way: string) => `${way} ${label ? `${label} ` : ""}C=${channels}`;
  let moments: Float64Array = new Float64Array();

  try {
    check();
  } catch (error) {
    tell(group, error, named("tfjs batch norm")); // The other ranks wait for this one.
  }

  const operation = tf.customGrad((...given) => {
    const save = given.pop() as (saved: readonly TfTensor[]) => void;
    const tensors = given as TfTensor[];
    const passOf = ([x, ...rest]: readonly TfTensor[]) => ({
      ...{ x, view, epsilon, counted },
      gamma: gamma && rest[0],
      beta: beta && rest[gamma ? 1 : 0],
    });
    const reduceMoments: Reduce = (make) => {
      let own = new Float64Array() as Float64Array;
      const local = () => own = make();
      moments = reduced(group, local, momentsWire.combine, named("tfjs batch norm"));
      checkWire(moments, momentsWire.length(channels), ACTION);
      momentsWire.check(moments, own, ACTION);
      return moments;
    };
    const value = kernels.forward(passOf(tensors), reduceMoments);
    save(tensors);
    const reduceSums: Reduce = (make) => {
      const sums = reduced(group, make, sumsWire.combine, named("tfjs batch norm backward"));
      checkWire(sums, sumsWire.length(channels), ACTION);
      return sums;
    };
    const gradFunc = (dy: TfTensor, saved: readonly TfTensor[]) =>
      tf.tidy(() => {
        const { dx, dgamma, dbeta } = kernels.backward(passOf(saved), dy, moments, reduceSums);
        return [dx, ...(gamma ? [dgamma] : []), ...(beta ? [dbeta] : [])];
      });
    return { value, gradFunc };
  });
  const y = operation(x, ...[gamma, beta].filter((tensor) => tensor !== null));
  return { y, ...meanAndVariance(moments, channels), count: moments[0] };
}

/** How a tensor is seen along an axis, and the check of it that waits for its turn. */
function viewOf(
  tf: TensorFlow,
  x: TfTensor,
  axis: number,
  vectors: readonly (TfTensor | null)[],
): { readonly view: View; readonly check: () => void } {
  const shape = x?.shape ?? [];
  const at = axis < 0 ? axis + shape.length : axis;
  const channels = shape[at] ?? 0;
  const [before, after] = [elements(shape.slice(0, at)), elements(shape.slice(at + 1))];
  const view: View = after === 1 ? [before, channels] : [before, channels, after];
  return { view, check: () => checkInput(tf, x, at, vectors) };
}

function checkInput(
  tf: TensorFlow,
  x: TfTensor,
  at: number,
  vectors: readonly (TfTensor | null)[],
): void {
  const { shape, dtype } = x ?? {};
  if (!Array.isArray(shape)) {
    throw new TypeError(`Cannot ${ACTION} as x must be a tf.Tensor: current value is ${shown(x)}`);
  }
  checkAlive(tf, x, "x", ACTION);
  if (dtype !== "float32") {
    throw new TypeError(
      `Cannot ${ACTION} as x must be of dtype "float32": current value is ${shown(dtype)}; ` +
        `cast it by tf.cast(x, "float32")`,
    );
  }
  if (!Number.isInteger(at) || at < 0 || at >= shape.length || shape.length < 2) {
    throw new RangeError(
      `Cannot ${ACTION} as axis must be one of a tensor of rank >= 2: current shape is ${
        listed(shape)
      }, and axis ${at}`,
    );
  }
  const channels = shape[at];
  if (channels === 0) {
    throw new RangeError(
      `Cannot ${ACTION} as there must be at least one channel: current shape is ${
        listed(shape)
      }, and axis ${at}`,
    );
  }
  vectors.forEach((vector, i) => {
    const name = ["gamma", "beta"][i];
    if (vector === null) return;
    if (vector.shape?.length === 1 && vector.shape[0] === channels) {
      return checkAlive(tf, vector, name, ACTION);
    }
    throw new TypeError(
      `Cannot ${ACTION} as ${name} must be of shape (${channels}), or null: current value is ${
        Array.isArray(vector.shape) ? `of shape ${listed(vector.shape)}` : shown(vector)
      }`,
    );
  });
}
