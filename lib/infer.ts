/**
 * Evaluation: normalize with running statistics, and its gradients. Never communicates.
 *
 * @module
 */

import { checkAlike, checkCall, checkCount, checkDevice } from "./checks.ts";
import type { Device, Statistics } from "./device.ts";
import { type Backward, gradients, gradientSums, normalize, ungate } from "./epilogue.ts";
import type { ForwardOptions } from "./forward.ts";
import { batch, region } from "./ownership.ts";
import type { BatchNormState } from "./state.ts";
import { extents, type Tensor } from "./tensor.ts";

/** Options of evaluation. */
export type InferOptions<A> = Pick<ForwardOptions<A>, "activation" | "residual">;

/**
 * Normalizes a batch for evaluation: with the running statistics, or with this batch's own where the state tracks none.
 *
 * y = (x - runningMean) / sqrt(runningVar + eps) * weight + bias, then the residual and the activation. Synchronous; no
 * rank ever waits for another, so one rank may evaluate alone.
 *
 * @param state the state; evaluation never changes it
 * @param input the batch, logical shape (N, C, ...spatial); N may be 0
 * @param effects `device`: where everything lives
 * @param options activation and residual
 * @returns the normalized batch, in the input's shape, dtype and format
 * @throws TypeError where shapes, dtypes or devices do not fit or only one running statistic is there, RangeError for
 * one value per channel without running statistics
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
  checkInfer(device, state, input, options, action);
  return region(
    device,
    (scope) =>
      batch(
        scope,
        (d) => normalize(d, input, statisticsOf(d, state, input), state, toEpilogue(options)),
      ),
  );
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
 * @param options activation and residual of the forward call
 * @returns frozen gradients
 * @throws what {@linkcode batchNormInfer} throws, and TypeError where gradOutput does not fit
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
  options: InferOptions<A> = {},
): Backward<A> {
  const action = "compute the gradients of evaluation";
  const { device } = checkDevice(effects, action);
  checkInfer(device, state, input, options, action);
  checkAlike(device, gradOutput, input, action, "gradOutput");
  return region(device, (scope) =>
    batch(scope, (d) => {
      const statistics = statisticsOf(d, state, input);
      const epilogue = toEpilogue(options);
      const output = epilogue.relu ? normalize(d, input, statistics, state, epilogue) : null;
      const residualFormat = epilogue.residual?.format ?? null;
      const gated = ungate(d, gradOutput, { output, residualFormat });
      const local = gradientSums(d, input, statistics, gated);
      const total = statistics.source === "batch" ? local : null;
      return gradients(d, input, statistics, state, gated, { local, total });
    }));
}

function checkInfer<A>(
  device: Device<A>,
  state: BatchNormState<A>,
  input: Tensor<A>,
  options: InferOptions<A>,
  action: string,
): void {
  checkCall(device, state, input, options, action);
  if (state.runningMean !== null) return;
  const { batch: samples, inner } = extents(input.shape);
  checkCount(samples * inner, action);
}

function statisticsOf<A>(
  device: Device<A>,
  { runningMean, runningVar }: BatchNormState<A>,
  input: Tensor<A>,
): Statistics<A> {
  return runningMean === null || runningVar === null
    ? { source: "batch", moments: device.moments(input) }
    : { source: "running", mean: runningMean, variance: runningVar };
}

function toEpilogue<A>({ activation, residual }: InferOptions<A>) {
  return { residual: residual ?? null, relu: activation === "relu" };
}
