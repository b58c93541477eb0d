/**
 * A synchronised batch norm between two segments of `vjp`: jax-js can neither wait within a function that it differentiates nor
 * be given a gradient, so the link is no part of one.
 *
 * @module
 */

import { checkDevice, checkGroup, checkOptions } from "../../check_effects.ts";
import { type BatchNormState, checkState } from "../../check_state.ts";
import type { ReduceGroup } from "../../collectives.ts";
import type { Device } from "../../device.ts";
import { combineMoments } from "../../moments.ts";
import { syncBatchNormForward } from "../../norm/forward.ts";
import { batchNormInfer } from "../../norm/infer.ts";
import { region, release } from "../../ownership.ts";
import { withParameters } from "../../state.ts";
import {
  around,
  checkArrays,
  checkBackend,
  checkFits,
  checkJax,
  checkShape,
  type Extents,
} from "./check.ts";
import type { Jax, JaxArray } from "./framework.ts";
import { give, take } from "./transfer.ts";
import { inTurn } from "./turn.ts";
import { type Ways, waysOf } from "./ways.ts";

/** Options of {@linkcode syncBatchNorm}. */
export interface SyncBatchNormOptions<A> {
  /**
   * The kernels: a Wasm device (or the reference) for arrays on jax-js's wasm and cpu backends,
   * `webgpuDevice(jax.getWebGPUDevice())` for those on its webgpu backend. Borrowed.
   */
  readonly device: Device<A>;
  /** The ranks to share statistics with. */
  readonly group: ReduceGroup;
  /** Axis of the channels, from the front or, negative, from the end; 1 by default, -1 for channels last. */
  readonly axis?: number;
}

/** What a batch norm returns in training. */
export interface Linked<J extends JaxArray, A, G extends J | null, B extends J | null>
  extends Ways<J, G, B> {
  /** The normalized rows of this rank, in the shape of h. */
  readonly y: J;
  /** The state after this batch, which takes the place of the one given; with the same bits on every rank. */
  readonly state: BatchNormState<A>;
}

/** A synchronised batch norm for arrays of jax-js. */
export interface SyncBatchNorm<J extends JaxArray, A> {
  /** Normalizes this rank's rows with the statistics of all ranks' rows: training. */
  <G extends J | null, B extends J | null>(
    h: J,
    gamma: G,
    beta: B,
    state: BatchNormState<A>,
  ): Promise<Linked<J, A, G, B>>;
  /** Normalizes with the running statistics: evaluation. No rank waits for another; the state stays as it is. */
  readonly infer: (
    h: J,
    gamma: J | null,
    beta: J | null,
    state: BatchNormState<A>,
  ) => Promise<J>;
}

const ACTION = "link the batch norm";

/**
 * Makes a synchronised batch norm for arrays of jax-js, a link between two segments of `vjp`.
 *
 * `norm(h, gamma, beta, state)` resolves to `{ y, pullback, jvp, hvp, state }`, and `pullback(dy)` to `[dh, dgamma, dbeta]`; `jvp`
 * and `hvp` are for directional derivatives and Hessian-vector products. The law holds: however the rows of a batch are cut over the ranks, unevenly or with none on some, y, gradients and running statistics are
 * those of one rank that holds them all.
 *
 * Ownership is that of jax-js: h, gamma, beta and dy are given up, so pass `gamma.ref` to keep it; y and gradients are the
 * caller's. The state is given up too: its arrays live on the device, and the next one takes their place. Each rank therefore
 * begins with a state of its own. A call that rejects has given up nothing. `pullback.dispose()` frees what is kept for the way
 * back. `norm.infer(h, gamma, beta, state)` gives up the three arrays, and not the state.
 *
 * On jax-js's webgpu backend nothing leaves the GPU but what travels: buffers are read where they lie, results are copied once.
 * On wasm and cpu numbers are copied both ways.
 *
 * @param jax the module of jax-js, version 0.1
 * @param options `device`, `group` and the axis of the channels; all other axes are samples and positions, of any number
 * @returns the batch norm. gamma and beta have shape (C), or are null for none; the state is one of
 * `initBatchNorm(device, C, { affine: false })`, where eps, momentum and tracking stand
 * @throws TypeError for a module, device or group that is none. The batch norm itself rejects with a CollectiveError, the same
 * on every rank, whose `cause` is the TypeError or RangeError of the rank at fault (alone: with that error): an array that is
 * gone, a tracer, float16, another backend than the device's, another shape
 *
 * @example A hidden layer, forward and back
 * ```ts
 * import { type BatchNormState, type ReduceGroup, referenceDevice, type ReferenceArray } from "@syncbn/syncbn";
 * import { type Jax, type JaxArray, syncBatchNorm } from "@syncbn/syncbn/jax";
 *
 * async function layer<J extends JaxArray>(
 *   jax: Jax<J>,
 *   group: ReduceGroup,
 *   [h, gamma, beta]: [J, J, J],
 *   before: BatchNormState<ReferenceArray>,
 *   rest: (y: J) => J, // a segment of vjp that returns the gradient of its argument
 * ) {
 *   const norm = syncBatchNorm(jax, { device: referenceDevice(), group });
 *   const { y, pullback, state } = await norm(h, gamma.ref, beta.ref, before);
 *   const [dh, dgamma, dbeta] = await pullback(rest(y));
 *   pullback.dispose();
 *   return { dh, dgamma, dbeta, state };
 * }
 * ```
 */
export function syncBatchNorm<J extends JaxArray, A>(
  jax: Jax<J>,
  options: SyncBatchNormOptions<A>,
): SyncBatchNorm<J, A> {
  checkJax(jax, ACTION);
  checkOptions(options, ["device", "group", "axis"], ACTION);
  checkDevice(options, ACTION);
  checkGroup(options.group, {}, ACTION, { name: "group" });
  const effects = { jax, ...options };
  const norm = (h: J, gamma: J | null, beta: J | null, state: BatchNormState<A>) =>
    link(effects, { h, gamma, beta, state });
  const infer = (h: J, gamma: J | null, beta: J | null, state: BatchNormState<A>) =>
    evaluate(effects, { h, gamma, beta, state });
  return Object.freeze(Object.assign(norm, { infer })) as SyncBatchNorm<J, A>;
}

/** What a batch norm was made with. */
interface Effects<J extends JaxArray, A> extends SyncBatchNormOptions<A> {
  readonly jax: Jax<J>;
}

/** What a call is about. */
interface Call<J extends JaxArray, A> {
  readonly h: J;
  readonly gamma: J | null;
  readonly beta: J | null;
  readonly state: BatchNormState<A>;
}

async function link<J extends JaxArray, A>(
  effects: Effects<J, A>,
  call: Call<J, A>,
): Promise<Linked<J, A, J | null, J | null>> {
  const { jax, device, group } = effects;
  const { h, state } = call;
  const label = `syncBatchNormForward C=${state?.numFeatures} ${h?.dtype}`;
  const { y, saved, next, extents } = await inTurn(group, { combine: combineMoments, label }, (
    group,
  ) =>
    region(device, async (scope) => {
      const extents = checkCall(effects, call);
      const { input, affine } = await taken(scope, call, extents);
      const forward = await syncBatchNormForward(affine, input, { device: scope, group });
      const y = await give(jax, scope, forward.output.data, h);
      const next = withParameters(forward.state, { weight: null, bias: null });
      return { y, saved: forward.saved, next, extents };
    }));
  release(device, state, { keep: next });
  return Object.freeze({ y, state: next, ...waysOf(effects, call, saved, extents) });
}

async function evaluate<J extends JaxArray, A>(
  effects: Effects<J, A>,
  call: Call<J, A>,
): Promise<J> {
  const { jax, device } = effects;
  const { h, gamma, beta } = call;
  const y = await region(device, async (scope) => {
    const extents = checkCall(effects, call);
    const { input, affine } = await taken(scope, call, extents);
    const output = batchNormInfer(affine, input, { device: scope }, { donate: true });
    return await give(jax, scope, output.data, h);
  });
  for (const array of [h, gamma, beta]) array?.dispose();
  return y;
}

/** Checks a call before anything is allocated, and finds the extents that normalization sees. */
function checkCall<J extends JaxArray, A>(
  { jax, device, axis = 1 }: Effects<J, A>,
  { h, gamma, beta, state }: Call<J, A>,
): Extents {
  checkArrays([["h", h], ["gamma", gamma], ["beta", beta]], ACTION);
  checkBackend(jax, device, h, ACTION);
  const extents = around(h.shape, axis, ACTION);
  const vector = [extents[1]];
  if (gamma !== null) checkShape(gamma, vector, "gamma", ACTION);
  if (beta !== null) checkShape(beta, vector, "beta", ACTION);
  checkState(device, state, ACTION);
  checkFits(state, extents[1], ACTION);
  return extents;
}

/** Takes a call's arrays as the library wants them. */
async function taken<J extends JaxArray, A>(
  scope: Device<A>,
  { h, gamma, beta, state }: Call<J, A>,
  extents: Extents,
) {
  const vector = async (array: J | null) =>
    array === null ? null : (await take(scope, array, [1, extents[1]])).data;
  const [input, weight, bias] = await Promise.all([
    take(scope, h, extents),
    vector(gamma),
    vector(beta),
  ]);
  return { input, affine: withParameters(state, { weight, bias }) };
}
