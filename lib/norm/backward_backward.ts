/**
 * Gradients of gradients: the way back through a backward pass of training, as gradient penalties and Hessian-vector products
 * need it. A ReLU's gate is taken for constant. Third order is left out.
 *
 * No kernel reduces for it: (A, B) are gradient sums of gradInput's direction, and D one about 0 with gradOutput in the place of
 * the input.
 */

import { checkDevice, checkOptions } from "../check_effects.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device, SecondPass, SumsPass } from "../device.ts";
import { batch } from "../ownership.ts";
import { type Tensor, tensorLike } from "../tensor.ts";
import { sumsWire } from "../wire.ts";
import { checkAlike } from "./check_call.ts";
import { checkForwards } from "./check_saved.ts";
import { checkDirections, passOf, readTogether, vectorAsSums } from "./directions.ts";
import type { GroupSaved, LocalSaved } from "./normalize.ts";
import { secondWire } from "./second_wire.ts";
import { type Crossing, overBlockingGroup, overGroup, type Read } from "./steps.ts";

/** Gradients of a loss by what a backward pass returned. */
export interface BackwardCotangents<A> {
  /** Gradient by gradInput, in its shape and dtype, any format. */
  readonly gradInput: Tensor<A>;
  /** Gradient by gradWeight, shape (C), float32; left out where the loss does not depend on it. */
  readonly gradWeight?: A | null;
  /** Gradient by gradBias, shape (C), float32; left out where the loss does not depend on it. */
  readonly gradBias?: A | null;
  /** Gradient by gradResidual, in its shape and dtype, any format; left out where the loss does not depend on it. */
  readonly gradResidual?: Tensor<A>;
}

/** Gradients of a loss by what a backward pass was made of. That of the weight is of this rank's part of the batch alone. */
export interface BackwardBackward<A> {
  /** Gradient of the input, in its shape, dtype and format. */
  readonly gradInput: Tensor<A>;
  /** Gradient of gradOutput, in the input's shape, dtype and format. */
  readonly gradGradOutput: Tensor<A>;
  /** Gradient of the weight, shape (C), float32; zeros for an empty batch; null where there was no weight. */
  readonly gradWeight: A | null;
}

const ACTION = "compute the gradients of the gradients";
/** Names of directions, which are those of a backward pass's results. */
export const COTANGENTS = {
  input: "gradInput",
  weight: "gradWeight",
  bias: "gradBias",
  residual: "gradResidual",
};

/**
 * Computes the gradients of {@linkcode batchNormBackward}: of a loss that depends on what it returned, by the input, gradOutput
 * and the weight.
 *
 * The formulas stand in docs/numerics.md. What the loss owes to the input by other ways is the caller's to add. Synchronous:
 * nothing is read back.
 *
 * @param saved what forward returned; borrowed, and valid for another call
 * @param gradOutput what backward was given
 * @param cotangents gradients of the loss by backward's results
 * @param effects `device`: where everything lives
 * @returns frozen gradients
 * @throws TypeError where arguments do not fit, or a gradient is by what backward did not return; DeviceError
 * "unsupported" where the device lacks the pass
 *
 * @example The gradient of |gradInput|^2 / 2
 * ```ts
 * import { batchNormBackward, batchNormBackwardBackward, batchNormForward, initBatchNorm } from "@syncbn/syncbn";
 * import { referenceDevice, tensor } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 2, 6], [3, 1]);
 * const { saved } = batchNormForward(initBatchNorm(device, 1), x, { device });
 * const dy = tensor(device, [1, 0, 0], [3, 1]);
 * const { gradInput } = batchNormBackward(saved, dy, { device });
 * const penalty = batchNormBackwardBackward(saved, dy, { gradInput }, { device });
 * console.assert(penalty.gradGradOutput.shape[0] === 3);
 * ```
 */
export function batchNormBackwardBackward<A>(
  saved: LocalSaved<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  effects: { readonly device: Device<A> },
): BackwardBackward<A> {
  const { device } = checkDevice(effects, ACTION);
  return alone(device, checked(device, "local", saved, gradOutput, cotangents, {}));
}

/**
 * Computes the gradients of {@linkcode syncBatchNormBackward} on this rank, of a loss that is the sum of all ranks' own.
 *
 * The formulas are those of {@linkcode batchNormBackwardBackward}, with sums over all ranks. One readback, one collective, one
 * upload, of 7C sums in float64, backward's own 2C among them, so that nothing has to be kept of it; every rank of forward must
 * call it.
 *
 * @param saved what forward returned on this rank; borrowed, and valid for another call
 * @param gradOutput what backward was given on this rank
 * @param cotangents gradients of the loss by backward's results on this rank; those of gradWeight and gradBias may differ
 * among ranks, as these do
 * @param effects `device`: where everything lives; `group`: the ranks of forward
 * @returns frozen gradients; that of the weight is this rank's own: data parallelism sums it with all others
 * @throws (rejects with) CollectiveError, the same on every rank, where a rank failed before the collective (`cause`: that of
 * {@linkcode batchNormBackwardBackward}), did something else, or did not arrive
 *
 * @example A gradient penalty over four replicas
 * ```ts
 * import { initBatchNorm, referenceDevice, runRanks, tensor } from "@syncbn/syncbn";
 * import { syncBatchNormBackward, syncBatchNormBackwardBackward, syncBatchNormForward } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const state = initBatchNorm(device, 2);
 * await runRanks(4, async (group) => {
 *   const effects = { device, group };
 *   const x = tensor(device, [group.rank, 1, 2, 3], [2, 2]);
 *   const { output, saved } = await syncBatchNormForward(state, x, effects);
 *   const { gradInput } = await syncBatchNormBackward(saved, output, effects);
 *   const second = await syncBatchNormBackwardBackward(saved, output, { gradInput }, effects);
 *   console.assert(device.describe(second.gradWeight!).length === 2);
 * });
 * ```
 */
export async function syncBatchNormBackwardBackward<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: Pick<CollectiveOptions, "signal"> = {},
): Promise<BackwardBackward<A>> {
  return await overGroup(effects, options, across(saved, gradOutput, cotangents, options));
}

/**
 * {@linkcode syncBatchNormBackwardBackward} on a thread that may be held up: a worker, a process of MPI. The same collective,
 * the same bits; the device must read back at once, as the reference and Wasm devices do.
 *
 * @throws what the awaited function rejects with; DeviceError "unsupported", as the `cause` of a CollectiveError on every
 * rank, where a device cannot read back at once
 */
export function syncBatchNormBackwardBackwardBlocking<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
): BackwardBackward<A> {
  return overBlockingGroup(effects, across(saved, gradOutput, cotangents, {}));
}

/** A call whose arguments are checked, as the device takes them. */
export type SecondCall<A> = SumsPass<A> & Pick<SecondPass<A>, "affine" | "directions">;

/** Sums of this rank. */
interface Sums<A> {
  readonly gradient: A;
  readonly along: A;
  readonly products: A;
}

function across<A>(
  saved: GroupSaved<A>,
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  options: object,
): Crossing<A, BackwardBackward<A>> {
  const [channels, dtype] = [saved?.input?.shape?.[1], saved?.input?.dtype];
  const check = (device: Device<A>, worldSize: number) =>
    checked(device, "group", saved, gradOutput, cotangents, options, worldSize);
  return {
    action: ACTION,
    label: `syncBatchNormBackwardBackward C=${channels} ${dtype}`,
    format: secondWire,
    channels: [channels],
    alone: (device) => alone(device, check(device, 1)),
    launch: (scope, worldSize, read) => {
      const { wire, conclude: end } = launchSecond(scope, check(scope, worldSize), read);
      const conclude = ([total]: readonly Float64Array[]) => end(total);
      return { wires: [wire], conclude };
    },
  };
}

/** The sums of a checked call as a wire, and what is made of all ranks' wires. */
export function launchSecond<A>(
  device: Device<A>,
  call: SecondCall<A>,
  read: Read<A>,
): {
  readonly wire: ReturnType<Read<A>>;
  readonly conclude: (total: Float64Array) => BackwardBackward<A>;
} {
  const { sums, wire } = batch(device, (d) => {
    const sums = sumsOf(d, call);
    return { sums, wire: wireOf(d, sums, call.directions.weight, read) };
  });
  const conclude = (total: Float64Array) =>
    batch(device, (d) => {
      const [gradient, along, weighted, products] = pairsOf(total, call.input.shape[1]).map((
        pair,
      ) => d.fromWire(sumsWire, pair));
      return secondOf(d, {
        ...{ ...call, total: gradient, weighted },
        along: { local: sums.along, total: along },
        products: { local: sums.products, total: products },
      });
    });
  return { wire, conclude };
}

function checked<A>(
  device: Device<A>,
  kind: "local" | "group",
  saved: (LocalSaved<A> | GroupSaved<A>) & { readonly worldSize?: number },
  gradOutput: Tensor<A>,
  cotangents: BackwardCotangents<A>,
  options: object,
  worldSize?: number,
): SecondCall<A> {
  checkOptions(options, ["signal"], ACTION);
  checkForwards(saved, kind, device, ACTION, worldSize, "BackwardBackward");
  checkAlike(device, gradOutput, saved.input, ACTION, "gradOutput");
  const had = { ...saved, residual: saved.residualFormat !== null };
  const directions = checkDirections(
    ...[device, cotangents, COTANGENTS, had, ACTION, "secondOrder"] as const,
  );
  return { ...passOf(saved), gradOutput: tensorLike(gradOutput, gradOutput.data), directions };
}

function alone<A>(device: Device<A>, call: SecondCall<A>): BackwardBackward<A> {
  const scratch: A[] = [];
  const result = batch(device, (d) => {
    const { gradient, along, products } = sumsOf(d, call);
    scratch.push(gradient, along, products);
    return secondOf(d, {
      ...{ ...call, total: gradient, weighted: null },
      along: { local: along, total: along },
      products: { local: products, total: products },
    });
  });
  device.free(...scratch);
  return result;
}

/** Three reductions, of (x, dy), (x, a) and (dy, a). */
function sumsOf<A>(device: Device<A>, { directions, ...pass }: SecondCall<A>): Sums<A> {
  const { input, gradOutput, statistics, output } = pass;
  return {
    gradient: device.gradientSums({ input, gradOutput, statistics, output }),
    along: device.gradientSums({ input, gradOutput: directions.input, statistics }),
    products: productsOf(device, { ...pass, directions }),
  };
}

/** Sums of (a, a*dy), of dy behind its gate: a deviation from 0 is the value itself. */
export function productsOf<A>(
  device: Device<A>,
  { input, gradOutput, output, directions }: SecondCall<A>,
): A {
  const zero = device.upload(new Float32Array(input.shape[1]));
  const statistics = { source: "running", mean: zero, variance: zero } as const;
  const pass = { input: gradOutput, gradOutput: directions.input, statistics, output };
  const products = device.gradientSums(pass);
  device.free(zero);
  return products;
}

/** This rank's part of the wire: (E, F) are (S1, S2) times the weight's direction. */
function wireOf<A>(
  device: Device<A>,
  { gradient, along, products }: Sums<A>,
  weight: A | null,
  read: Read<A>,
): Float64Array | Promise<Float64Array> {
  const reads = [gradient, along, products].map((sums) => read(device, sums));
  if (weight !== null) reads.push(read(device, vectorAsSums(device, weight)));
  return readTogether(reads, joined);
}

function joined([gradient, along, products, weight]: readonly Float64Array[]): Float64Array {
  const channels = gradient.length / 2;
  const weighted = gradient.map((sum, i) => weight ? sum * weight[i % channels] : 0);
  const wire = new Float64Array(secondWire.length(channels));
  [gradient, along, weighted, products.subarray(channels)].forEach((part, i) =>
    wire.set(part, 2 * channels * i)
  );
  return wire;
}

/** The pairs of a wire, as wires of gradient sums: (S1, S2), (A, B), (E, F), and (0, D). */
function pairsOf(wire: Float64Array, channels: number): readonly Float64Array[] {
  const pairs = [0, 1, 2].map((i) => wire.subarray(2 * channels * i, 2 * channels * (i + 1)));
  const products = new Float64Array(2 * channels);
  products.set(wire.subarray(6 * channels), channels);
  return [...pairs, products];
}

/** Runs the pass that ends it, and gives its arrays the meaning of tensors. */
export function secondOf<A>(device: Device<A>, pass: SecondPass<A>): BackwardBackward<A> {
  const { gradInput, gradGradOutput, gradWeight } = device.secondGradients!(pass);
  return Object.freeze({
    gradInput: tensorLike(pass.input, gradInput),
    gradGradOutput: tensorLike(pass.input, gradGradOutput),
    gradWeight,
  });
}
