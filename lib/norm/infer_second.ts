/** Second order of evaluation, whose statistics do not move; never communicates. */

import { rectifiedBy } from "../activation.ts";
import { checkDevice } from "../check_effects.ts";
import type { Device } from "../device.ts";
import { compose } from "../ownership.ts";
import type { BatchNormState } from "../state.ts";
import { type Tensor, tensorLike } from "../tensor.ts";
import { type BackwardCotangents, COTANGENTS } from "./backward_backward.ts";
import { checkAlike } from "./check_call.ts";
import { checkDirections, type DirectionNames, sumsAlong } from "./directions.ts";
import { checkInfer, momentsIn, statisticsOf } from "./infer.ts";
import { TANGENTS, type Tangents } from "./jvp.ts";
import type { NormalizeOptions } from "./normalize.ts";
import {
  type BackwardBackward,
  productsOf,
  secondAmong,
  type SecondCall,
  secondOf,
} from "./second_sums.ts";

const OPTIONS = ["activation", "residual", "weights", "lengths"];

/**
 * Computes the directional derivative of {@linkcode batchNormInfer}: its Jacobian times a vector.
 *
 * With s = 1/sqrt(runningVar + eps): weight*s*t + dweight * (x - runningMean)*s + dbias + dresidual, and 0 where a ReLU's output
 * is. Where the state tracks nothing it is `batchNormJvp` of this rank's own batch. Recomputes the output where an activation
 * needs its sign, so it takes the options of the forward call.
 *
 * @param state the state of the forward call
 * @param input the batch of the forward call
 * @param tangents directions of input, weight, bias and residual
 * @param effects `device`: where everything lives
 * @param options activation and residual of the forward call
 * @returns the direction of the output, in the input's shape, dtype and format
 * @throws what {@linkcode batchNormInfer} throws, TypeError where tangents do not fit, DeviceError "unsupported" where the
 * device lacks the pass
 *
 * @example
 * ```ts
 * import { batchNormInferJvp, initBatchNorm, referenceDevice, tensor, toArray } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const fresh = initBatchNorm(device, 1, { eps: 0 });
 * const x = tensor(device, [5, 6], [2, 1]);
 * const along = batchNormInferJvp(fresh, x, { input: x, weight: fresh.weight }, { device });
 * assert.deepEqual(await toArray(device, along), Float32Array.of(10, 12));
 * ```
 */
export function batchNormInferJvp<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  tangents: Tangents<A>,
  effects: { readonly device: Device<A> },
  options: NormalizeOptions<A> = {},
): Tensor<A> {
  const action = "follow the directions of evaluation";
  const call = { state, input, options, given: tangents, names: TANGENTS, action };
  return evaluated(effects, call, (d, pass, scratch) => {
    const { counted: _, ...moving } = pass;
    const total = pass.statistics.source === "running" ? null : sumsAlong(d, pass);
    if (total !== null) scratch.push(total);
    return tensorLike(input, d.tangents!({ ...moving, total }));
  });
}

/**
 * Computes the gradients of {@linkcode batchNormInferBackward}, of a loss that depends on what it returned.
 *
 * With the loss' gradients a by gradInput and q by gradWeight: gradInput = q*s*dy, gradWeight = s * sum a*dy, and
 * gradGradOutput is what {@linkcode batchNormInferJvp} gives of them. Where the state tracks nothing they are those of
 * `batchNormBackwardBackward` of this rank's own batch.
 *
 * @param state the state of the forward call
 * @param input the batch of the forward call
 * @param gradOutput what backward was given
 * @param cotangents gradients of the loss by backward's results
 * @param effects `device`: where everything lives
 * @param options activation and residual of the forward call
 * @returns frozen gradients
 * @throws what {@linkcode batchNormInferJvp} throws
 *
 * @example
 * ```ts
 * import { batchNormInferBackwardBackward, initBatchNorm, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const fresh = initBatchNorm(device, 1, { eps: 0 });
 * const [x, dy, a] = [[5, 6], [2, 3], [1, 1]].map((values) => tensor(device, values, [2, 1]));
 * const { gradWeight } = batchNormInferBackwardBackward(fresh, x, dy, { gradInput: a }, { device });
 * assert.deepEqual(await device.download(gradWeight!), Float32Array.of(5));
 * ```
 */
export function batchNormInferBackwardBackward<A>(
  state: BatchNormState<A>,
  input: Tensor<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  effects: { readonly device: Device<A> },
  options: NormalizeOptions<A> = {},
): BackwardBackward<A> {
  const action = "compute the gradients of the gradients of evaluation";
  const call = { state, input, gradOutput, options, given: cotangents, names: COTANGENTS, action };
  return evaluated(effects, call, (d, common, scratch) => {
    const pass = { ...common, gradOutput };
    if (pass.statistics.source === "batch") return secondAmong(d, pass, scratch);
    const local = productsOf(d, pass);
    scratch.push(local);
    const none = { total: null, along: null, weighted: null };
    return secondOf(d, { ...pass, counted: {} }, { ...none, products: { local, total: null } });
  });
}

interface Call<A> {
  readonly state: BatchNormState<A>;
  readonly input: Tensor<A>;
  readonly gradOutput?: Tensor<A>;
  readonly options: NormalizeOptions<A>;
  readonly given: object;
  readonly names: DirectionNames;
  readonly action: string;
}

/** Checks a call, recomputes what it needs of forward, and frees it afterwards. */
function evaluated<A, R>(
  effects: { readonly device: Device<A> },
  { state, input, gradOutput, options, given, names, action }: Call<A>,
  body: (d: Device<A>, call: Omit<SecondCall<A>, "gradOutput">, scratch: A[]) => R,
): R {
  const { device } = checkDevice(effects, action);
  const weights = checkInfer(device, state, input, options, action, OPTIONS);
  if (names === COTANGENTS) checkAlike(device, gradOutput!, input, action, "gradOutput");
  const { activation, residual } = options;
  const { weight, bias } = state;
  const had = { input, weight, bias, residual: residual !== undefined };
  const pass = names === TANGENTS ? "tangents" : "secondOrder";
  const directions = checkDirections(device, given, names, had, action, pass);
  const scratch: A[] = [];
  const result = compose(device, (d) => {
    const statistics = statisticsOf(d, state, input, weights, action);
    const common = { input, statistics, affine: state };
    scratch.push(...momentsIn(statistics));
    const output = activation === undefined ? undefined : rectifiedBy(
      activation,
      tensorLike(input, d.normalize({ ...common, residual, activation })),
    );
    if (output) scratch.push(output.data);
    return body(d, { ...common, output, directions, counted: weights }, scratch);
  });
  device.free(...scratch);
  return result;
}
