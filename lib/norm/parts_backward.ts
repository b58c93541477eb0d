/** Gradients of one batch in parts: its sums are those of all parts, and over a group of all ranks. */

import { checkDevice } from "../check_effects.ts";
import type { BlockingGroup, CollectiveOptions, ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { compose } from "../ownership.ts";
import type { Tensor } from "../tensor.ts";
import { formatOn, sumsWire } from "../wire.ts";
import { refused, shown, wrongPair } from "../words.ts";
import { type Backward, gradientsOf } from "./backward.ts";
import { checkSaved } from "./check_saved.ts";
import type { GroupSaved, LocalSaved } from "./normalize.ts";
import { checkList } from "./parts.ts";
import { type Crossing, overBlockingGroup, overGroup } from "./steps.ts";

/** Gradients of a batch in parts. */
export interface PartsBackward<A> extends Pick<Backward<A>, "gradWeight" | "gradBias" | "group"> {
  /** Gradients of the parts. */
  readonly gradInputs: readonly Tensor<A>[];
  /** Gradients of the residuals, in their formats; missing where there were none. */
  readonly gradResiduals?: readonly Tensor<A>[];
}

const BACKWARD = "compute the gradients of the parts";

/**
 * Computes the gradients of `batchNormForwardParts`: sums over dy are those of all parts.
 *
 * @param saved what forward returned; borrowed, and valid for another call
 * @param gradOutputs gradients of the outputs, as many and in the same order
 * @param effects `device`: where everything lives
 * @returns frozen gradients; those of weight and bias are of the whole batch
 * @throws what `batchNormBackward` throws; TypeError where the lists do not fit
 *
 * @example
 * ```ts
 * import { batchNormBackwardParts, batchNormForwardParts, initBatchNorm, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const parts = [[1, 2], [6]].map((values) => tensor(device, values, [values.length, 1]));
 * const { saved } = batchNormForwardParts(initBatchNorm(device, 1), parts, { device });
 * const { gradBias } = batchNormBackwardParts(saved, parts, { device });
 * assert.deepEqual(await device.download(gradBias!), Float32Array.of(9));
 * ```
 */
export function batchNormBackwardParts<A>(
  saved: readonly LocalSaved<A>[],
  gradOutputs: readonly Tensor<A>[],
  effects: { readonly device: Device<A> },
): PartsBackward<A> {
  const { device } = checkDevice(effects, BACKWARD);
  return compose(device, (d) => backwardAlone(d, saved, gradOutputs, "local"));
}

/**
 * {@linkcode batchNormBackwardParts} with the sums of all parts of all ranks: one collective. Gradients of weight and bias
 * are of this rank's parts.
 *
 * @throws (rejects with) what `syncBatchNormBackward` rejects with
 */
export async function syncBatchNormBackwardParts<A>(
  saved: readonly GroupSaved<A>[],
  gradOutputs: readonly Tensor<A>[],
  effects: { readonly device: Device<A>; readonly group: ReduceGroup },
  options: Pick<CollectiveOptions, "signal"> = {},
): Promise<PartsBackward<A>> {
  return await overGroup(effects, options, partsBackward(saved, gradOutputs, labelOf(saved)));
}

/** {@linkcode syncBatchNormBackwardParts} on a thread that may be held up. */
export function syncBatchNormBackwardPartsBlocking<A>(
  saved: readonly GroupSaved<A>[],
  gradOutputs: readonly Tensor<A>[],
  effects: { readonly device: Device<A>; readonly group: BlockingGroup },
): PartsBackward<A> {
  return overBlockingGroup(effects, partsBackward(saved, gradOutputs, labelOf(saved)));
}

const labelOf = <A>(saved: readonly GroupSaved<A>[]) =>
  `syncBatchNormBackwardParts C=${shown(saved?.[0]?.input?.shape?.[1])}`;

/** {@linkcode syncBatchNormBackwardParts} as a crossing; the label is what the ranks compare. */
export function partsBackward<A>(
  saved: readonly GroupSaved<A>[],
  gradOutputs: readonly Tensor<A>[],
  label: string,
): Crossing<A, PartsBackward<A>> {
  return {
    action: BACKWARD,
    label,
    format: sumsWire,
    channels: [saved?.[0]?.input?.shape?.[1]],
    alone: (device) => compose(device, (d) => backwardAlone(d, saved, gradOutputs, "group", 1)),
    launch: (scope, worldSize, read) => {
      const [kept, given] = [saved, gradOutputs].map((list) =>
        Array.isArray(list) ? list.map((part) => ({ ...part })) : list
      ) as [readonly GroupSaved<A>[], readonly Tensor<A>[]];
      checkParts(scope, kept, given, "group", worldSize);
      const { locals, wire } = compose(scope, (d) => {
        const { locals, own } = sumsOf(d, kept, given);
        return { locals, wire: read(d, own) };
      });
      const conclude = ([total]: readonly Float64Array[]) =>
        compose(
          scope,
          (d) =>
            gradients(d, kept, given, { locals, total: d.fromWire(formatOn(d, sumsWire), total) }),
        );
      return { wires: [wire], conclude };
    },
  };
}

function checkParts<A>(
  device: Device<A>,
  saved: readonly (LocalSaved<A> | GroupSaved<A>)[],
  gradOutputs: readonly Tensor<A>[],
  kind: "local" | "group",
  worldSize?: number,
): void {
  checkList(saved, "saved", BACKWARD);
  checkList(gradOutputs, "gradOutputs", BACKWARD);
  if (saved.length !== gradOutputs.length) {
    const wanted = "there must be a gradOutput for each part";
    throw wrongPair(BACKWARD, wanted, gradOutputs.length, saved.length);
  }
  saved.forEach((part, i) => {
    const action = `${BACKWARD}, part ${i},`;
    const call = { saved: part, gradOutput: gradOutputs[i], options: {}, action };
    checkSaved(call, kind, device, worldSize, "BackwardParts");
    if (part.moments.data === saved[0].moments.data) return;
    throw refused(action, "all parts must be of one batch", "moments are of another");
  });
}

function backwardAlone<A>(
  device: Device<A>,
  ...call: [
    saved: readonly (LocalSaved<A> | GroupSaved<A>)[],
    gradOutputs: readonly Tensor<A>[],
    kind: "local" | "group",
    worldSize?: number,
  ]
): PartsBackward<A> {
  checkParts(device, ...call);
  const [saved, gradOutputs] = call;
  const { locals, own } = sumsOf(device, saved, gradOutputs);
  const result = gradients(device, saved, gradOutputs, { locals, total: own });
  device.free(own, ...locals);
  return result;
}

type Saveds<A> = readonly (LocalSaved<A> | GroupSaved<A>)[];

/** Sums of each part of this rank, and of all of them. */
function sumsOf<A>(
  device: Device<A>,
  saved: Saveds<A>,
  gradOutputs: readonly Tensor<A>[],
): { readonly locals: readonly A[]; readonly own: A } {
  const locals = saved.map((part, i) => device.gradientSums(passOf(part, gradOutputs[i])));
  const own = locals.reduce((a, b) => {
    const both = device.merge(a, b);
    if (!locals.includes(a)) device.free(a);
    return both;
  });
  return { locals, own };
}

function passOf<A>(
  { input, output, moments, weight, bias, eps, residualFormat }: LocalSaved<A> | GroupSaved<A>,
  gradOutput: Tensor<A>,
) {
  const statistics = { source: "batch", moments: moments.data } as const;
  return {
    input,
    gradOutput,
    statistics,
    output: output ?? undefined,
    affine: { weight, bias, eps },
    residualFormat: residualFormat ?? undefined,
  };
}

function gradients<A>(
  device: Device<A>,
  saved: Saveds<A>,
  gradOutputs: readonly Tensor<A>[],
  sums: { readonly locals: readonly A[]; readonly total: A },
): PartsBackward<A> {
  const { locals, total } = sums;
  const all = saved.map((part, i) =>
    gradientsOf(
      device,
      { ...passOf(part, gradOutputs[i]), sums: { local: locals[i], total } },
      part,
    )
  );
  const sum = (a: A | null, b: A | null) => {
    if (a === null || b === null) return null;
    const both = device.addScaled({ x: a, y: b, scale: 1 });
    device.free(a, b);
    return both;
  };
  // Every part has those of the whole group.
  const [group, ...same] = all.flatMap(({ group }) => group ?? []);
  for (const { gradWeight, gradBias } of same) {
    device.free(...[gradWeight, gradBias].filter((array) => array !== null));
  }
  const residuals = all.flatMap(({ gradResidual }) => gradResidual ?? []);
  return Object.freeze({
    gradInputs: Object.freeze(all.map(({ gradInput }) => gradInput)),
    ...(residuals.length > 0 && { gradResiduals: Object.freeze(residuals) }),
    gradWeight: all.map(({ gradWeight }) => gradWeight).reduce(sum),
    gradBias: all.map(({ gradBias }) => gradBias).reduce(sum),
    ...(group && { group }),
  });
}
