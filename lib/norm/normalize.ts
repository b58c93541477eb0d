/** Forward with given moments: the combination without the reduction, and what backward needs of it. */

import { type Activation, type Rectified, rectifiedBy } from "../activation.ts";
import { checkDevice } from "../check_effects.ts";
import type { Device } from "../device.ts";
import type { BatchNormState } from "../state.ts";
import { type Format, type Tensor, tensorLike } from "../tensor.ts";
import { checkCall, checkKept } from "./check_call.ts";
import {
  checkEnough,
  checkMoments,
  type GroupMoments,
  type LocalMoments,
  type Moments,
} from "./statistics.ts";
import { checkBoth, type Weighed, weighed, type WeightOptions, type Weights } from "./weights.ts";

/** What follows the affine map, and what counted. */
export interface NormalizeOptions<A> extends WeightOptions<A> {
  /** Applied last: `"relu"` is y = max(y, 0); a record has a slope below 0, or a bound above. */
  readonly activation?: Activation;
  /** Added before the activation; shape and dtype of the input, any format. */
  readonly residual?: Tensor<A>;
}

/**
 * What backward needs of forward. Borrows the input, the weight and the bias, and with an activation the output: keep
 * them until backward is done. The moments belong to it.
 */
export interface Saved<A> extends Weights<A> {
  /** The input of forward, borrowed. */
  readonly input: Tensor<A>;
  /** The output of forward where an activation was applied, borrowed; else null. */
  readonly output: Rectified<A> | null;
  /** The statistics that the batch was normalized with. */
  readonly moments: Moments<A>;
  /** The weight of forward, borrowed, or null. */
  readonly weight: A | null;
  /** The bias of forward, borrowed, or null. */
  readonly bias: A | null;
  /** The eps of forward. */
  readonly eps: number;
  /** Memory order of the residual that was added, or null where none was. */
  readonly residualFormat: Format | null;
}

/** What a local forward saves; only a local backward takes it. */
export interface LocalSaved<A> extends Saved<A> {
  /** Sets it apart from a synchronised forward's. */
  readonly kind: "local";
}

/** What a synchronised forward saves; only a synchronised backward over as many ranks takes it. */
export interface GroupSaved<A> extends Saved<A> {
  /** Sets it apart from a local forward's. */
  readonly kind: "group";
  /** Number of ranks whose statistics these are. */
  readonly worldSize: number;
}

/** A normalized batch, and what backward needs. */
export interface Normalized<A, S extends Saved<A> = LocalSaved<A> | GroupSaved<A>> {
  /** The normalized batch, in the input's shape, dtype and format. */
  readonly output: Tensor<A>;
  /** What backward needs; its moments are those that were given. */
  readonly saved: S;
}

const ACTION = "normalize the batch";
const OPTIONS = ["activation", "residual", "weights", "lengths", "donate"];

/**
 * Normalizes a batch with moments that are there already: forward without a reduction, and without a collective.
 *
 * y = (x - mean) / sqrt(m2 / count + eps) * weight + bias, then the residual and the activation. With the moments that
 * forward returned it recomputes forward's output, bit for bit, as activation checkpointing does.
 *
 * @param state weight, bias and eps; it is not changed, and running statistics play no part
 * @param input the batch, logical shape (N, C, ...spatial), float32 or float16
 * @param moments the statistics, of this rank's batches or of a group's
 * @param effects `device`: where everything lives
 * @param options activation and residual; the weights of this batch where the moments count by weight, which backward needs
 * @returns output, and what backward needs (of a group's moments: what `syncBatchNormBackward` takes), both frozen
 * @throws TypeError where shapes, dtypes or devices do not fit, RangeError for moments of one value
 *
 * @example Recomputing an output
 * ```ts
 * import { batchNormForward, initBatchNorm, normalizeWith, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 1);
 * const x = tensor(device, [1, 2, 6], [3, 1]);
 * const { output, moments } = batchNormForward(state, x, { device });
 * const again = normalizeWith(state, x, moments, { device }).output;
 * assert.deepEqual(await toArray(device, again), await toArray(device, output));
 * ```
 */
export function normalizeWith<A, M extends LocalMoments<A> | GroupMoments<A>>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  moments: M,
  effects: { readonly device: Device<A> },
  options: NormalizeOptions<A> = {},
): Normalized<A, M extends LocalMoments<A> ? LocalSaved<A> : GroupSaved<A>> {
  const { device } = checkDevice(effects, ACTION);
  checkCall(device, state, input, options, OPTIONS, ACTION);
  checkKept(options, ACTION);
  checkMoments(device, moments, ACTION, "the moments", state.numFeatures);
  checkEnough(moments, ACTION);
  const chosen = weighed(device, input, options, ACTION);
  checkBoth(moments, chosen, ACTION);
  const result: unknown = Object.freeze(
    normalized(device, state, input, moments, chosen),
  );
  return result as ReturnType<typeof normalizeWith<A, M>>;
}

/** {@linkcode normalizeWith} of what is checked. */
export function normalized<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  moments: LocalMoments<A> | GroupMoments<A>,
  { activation, residual, weights, lengths }: Weighed<A, NormalizeOptions<A>>,
): Normalized<A> {
  const { weight, bias, eps } = state;
  const data = device.normalize({
    input,
    statistics: { source: "batch", moments: moments.data },
    affine: { weight, bias, eps },
    residual,
    activation,
  });
  const output = tensorLike(input, data);
  const plain = {
    kind: moments.kind,
    input,
    output: activation === undefined ? null : rectifiedBy(activation, output),
    moments,
    weight,
    bias,
    eps,
    residualFormat: residual?.format ?? null,
  };
  const whole = moments.kind === "group" ? { ...plain, worldSize: moments.worldSize } : plain;
  const saved = weights ? { ...whole, weights } : lengths ? { ...whole, lengths } : whole;
  return { output, saved: Object.freeze(saved) as LocalSaved<A> | GroupSaved<A> };
}
