/**
 * One batch norm of tfjs's over a group that holds up the thread, with exact gradients through the collective.
 *
 * @module
 */

import { checkGroup, checkOptions } from "../../check_effects.ts";
import type { BlockingGroup } from "../../collectives.ts";
import type { Device } from "../../device.ts";
import { mistaken, shown } from "../../words.ts";
import { deviceKernels, type ReadableArray } from "./device_kernels.ts";
import { tensorFlowOf } from "./internals.ts";
import type { NormKernels } from "./kernels.ts";
import { normalizeOver } from "./operation.ts";
import { tfKernels } from "./tf_kernels.ts";
import type { TensorFlow, TensorFlowLike, TfTensor } from "./framework.ts";

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
 * processes. Gradients of gradients are exact too, with a third collective, as gradient penalties need them (`tf.grad` within
 * `tf.variableGrads`); the statistics are numbers, which have none. A batch of one value per channel has variance 0, as in Keras.
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
