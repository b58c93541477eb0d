/**
 * Evaluation: normalize with running statistics, and its gradients. Never communicates.
 *
 * An array that is donated is freed on every device, whether or not it was overwritten, so that no program depends on
 * one device. The result is a new handle all the same, so that ownership needs no special case.
 */

import { rectifiedBy } from "../activation.ts";
import { checkDevice } from "../check_effects.ts";
import type { Device, Statistics } from "../device.ts";
import { checkCount } from "../moments.ts";
import { compose } from "../ownership.ts";
import type { BatchNormState } from "../state.ts";
import { type Tensor, tensorLike, valuesPerChannel } from "../tensor.ts";
import { type Backward, type BackwardOptions, gradientsOf } from "./backward.ts";
import { checkAlike, checkCall, checkGivenUp, isDonated } from "./check_call.ts";
import type { NormalizeOptions } from "./normalize.ts";
import { checkEnough, momentsOf } from "./statistics.ts";
import { isWeighted, type Taken, takeWeights, type Weights } from "./weights.ts";

/** Options of evaluation. */
export interface InferOptions<A> extends NormalizeOptions<A> {
  /**
   * Gives the input up: the result may be written over it, which saves a pass over memory, and its array is freed when
   * the call succeeds, on every device. A call that throws leaves it the caller's. False by default.
   */
  readonly donate?: boolean;
}

/** Options of the gradients of evaluation. */
export interface InferBackwardOptions<A> extends NormalizeOptions<A>, BackwardOptions {}

/**
 * Normalizes a batch for evaluation: with the running statistics, or with this batch's own where the state tracks none.
 *
 * y = (x - runningMean) / sqrt(runningVar + eps) * weight + bias, then the residual and the activation. Synchronous; no
 * rank ever waits for another, so one rank may evaluate alone.
 *
 * @param state the state; evaluation never changes it
 * @param input the batch, logical shape (N, C, ...spatial); N may be 0
 * @param effects `device`: where everything lives
 * @returns the normalized batch, in the input's shape, dtype and format
 * @throws TypeError where shapes, dtypes or devices do not fit, only one running statistic is there or the input to give
 * up is the residual or the state's too, RangeError for one value per channel without running statistics
 *
 * @example
 * ```ts
 * import { batchNormInfer, initBatchNorm, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const fresh = initBatchNorm(device, 1, { eps: 0 });
 * const y = batchNormInfer(fresh, tensor(device, [5], [1, 1]), { device });
 * assert.deepEqual(await toArray(device, y), Float32Array.of(5));
 * ```
 */
export function batchNormInfer<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: InferOptions<A> = {},
): Tensor<A> {
  const action = "evaluate the batch";
  const { device } = checkDevice(effects, action);
  const weights = checkInfer(device, state, input, options, action);
  const donate = isDonated(options.donate, action);
  if (donate) checkGivenUp(input, borrowed(state, options, weights), action, "input");
  const { activation, residual } = options;
  const scratch = donate ? [input.data] : [];
  const output = compose(device, (d) => {
    const statistics = statisticsOf(d, state, input, weights, action);
    scratch.push(...momentsIn(statistics));
    const pass = { input, statistics, affine: state, residual, activation, overwrite: donate };
    return tensorLike(input, d.normalize(pass));
  });
  if (scratch.length > 0) device.free(...scratch);
  return output;
}

/**
 * Computes the gradients of {@linkcode batchNormInfer}, as for fine-tuning with fixed statistics.
 *
 * With s = 1/sqrt(runningVar + eps): gradInput = weight*s*dy, gradWeight = s * sum dy*(x - runningMean), gradBias =
 * sum dy. Where the state tracks nothing they are the training gradients of this rank's own batch. Recomputes the output
 * where an activation needs its sign, so it takes the options of the forward call.
 *
 * @param state the state of the forward call
 * @param input the batch of the forward call
 * @param gradOutput gradient of its output, in its shape and dtype, any format
 * @param effects `device`: where everything lives
 * @param options activation and residual of the forward call, whether gradOutput is given up
 * @returns frozen gradients
 * @throws what {@linkcode batchNormInfer} throws, and TypeError where gradOutput does not fit, or is to be given up and
 * is the input, the residual or the state's too
 *
 * @example
 * ```ts
 * import { batchNormInferBackward, initBatchNorm, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const fresh = initBatchNorm(device, 1, { eps: 0 });
 * const [x, dy] = [tensor(device, [5, 6], [2, 1]), tensor(device, [2, 3], [2, 1])];
 * const { gradInput } = batchNormInferBackward(fresh, x, dy, { device });
 * assert.deepEqual(await toArray(device, gradInput), Float32Array.of(2, 3));
 * ```
 */
export function batchNormInferBackward<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: InferBackwardOptions<A> = {},
): Backward<A> {
  const action = "compute the gradients of evaluation";
  const { device } = checkDevice(effects, action);
  const weights = checkInfer(device, state, input, options, action);
  checkAlike(device, gradOutput, input, action, "gradOutput");
  const donate = isDonated(options.donate, action);
  if (donate) {
    checkGivenUp(gradOutput, { input, ...borrowed(state, options, weights) }, action, "gradOutput");
  }
  const { activation, residual } = options;
  const scratch = donate ? [gradOutput.data] : [];
  const result = compose(device, (d) => {
    const statistics = statisticsOf(d, state, input, weights, action);
    const common = { input, statistics, affine: state };
    const output = activation === undefined ? undefined : rectifiedBy(
      activation,
      tensorLike(input, d.normalize({ ...common, residual, activation })),
    );
    const pass = { ...common, gradOutput, output };
    const local = d.gradientSums(pass);
    const total = statistics.source === "batch" ? local : null;
    scratch.push(local, ...momentsIn(statistics));
    if (output) scratch.push(output.data);
    const sums = { local, total };
    const residualFormat = residual?.format;
    const whole = { ...pass, sums, residualFormat, overwrite: donate };
    return gradientsOf(d, whole, total === null ? {} : weights);
  });
  device.free(...scratch);
  return result;
}

const OPTIONS = ["activation", "residual", "weights", "lengths", "donate"];

/** Checks what every function of evaluation is given, and gives its weights. */
export function checkInfer<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  options: NormalizeOptions<A>,
  action: string,
  known: readonly string[] = OPTIONS,
): Taken<A> {
  checkCall(device, state, input, options, known, action);
  if (state.runningMean === null && !isWeighted(options)) {
    checkCount(valuesPerChannel(input), action);
  }
  return takeWeights(device, input, options, action);
}

/** What evaluation normalizes with. */
export function statisticsOf<A>(
  device: Device<A>,
  { runningMean, runningVar }: BatchNormState<A>,
  input: Tensor<A>,
  weights: Weights<A>,
  action: string,
): Statistics<A> {
  if (runningMean !== null && runningVar !== null) {
    return { source: "running", mean: runningMean, variance: runningVar };
  }
  const moments = momentsOf(device, input, weights, action);
  checkEnough(moments, action);
  return { source: "batch", moments: moments.data };
}

/** Moments that were made for a call, and are nobody's after it. */
export function momentsIn<A>(statistics: Statistics<A>): A[] {
  return statistics.source === "batch" ? [statistics.moments] : [];
}

/** What a call borrows beside its batch, by the names of messages. */
function borrowed<A>(
  { weight, bias, runningMean, runningVar }: BatchNormState<A>,
  { residual }: NormalizeOptions<A>,
  { weights }: Weights<A>,
) {
  return {
    residual,
    weight,
    bias,
    weights,
    "running mean": runningMean,
    "running variance": runningVar,
  };
}
