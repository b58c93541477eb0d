/** Gradients of ghost batches: each group's own, joined; those of weight and bias added. */

import { rectifiedBy } from "../activation.ts";
import { checkDevice } from "../check_effects.ts";
import type { Device } from "../device.ts";
import { compose } from "../ownership.ts";
import { type Tensor, tensorLike } from "../tensor.ts";
import { wrongKind, wrongPair } from "../words.ts";
import { type Backward, type BackwardOptions, gradientsOf } from "./backward.ts";
import { checkDonated, checkSaved } from "./check_saved.ts";
import { checkGhost } from "./check_call.ts";
import { type GhostSaved, groupsOf } from "./ghost.ts";
import type { LocalSaved } from "./normalize.ts";
import { joined, samplesOf, weightsOfSamples } from "./samples.ts";

const ACTION = "compute the gradients of the groups";

/**
 * Computes the gradients of `batchNormForwardGhost` and `syncBatchNormForwardGhost`, without a collective.
 *
 * @param saved what forward returned; borrowed, and valid for another call
 * @param gradOutput gradient of forward's output, in its shape and dtype, any format
 * @param effects `device`: where everything lives
 * @returns frozen gradients
 * @throws what `batchNormBackward` throws
 *
 * @example
 * ```ts
 * import { batchNormBackwardGhost, batchNormForwardGhost, initBatchNorm, referenceDevice, tensor } from "@syncbn/syncbn";
 * import assert from "node:assert/strict";
 *
 * const device = referenceDevice();
 * const x = tensor(device, [1, 3, 10, 30], [4, 1]);
 * const { saved } = batchNormForwardGhost(initBatchNorm(device, 1), x, { device }, { ghost: 2 });
 * const { gradBias } = batchNormBackwardGhost(saved, x, { device });
 * assert.deepEqual(await device.download(gradBias!), Float32Array.of(44));
 * ```
 */
export function batchNormBackwardGhost<A>(
  saved: GhostSaved<A>,
  gradOutput: Tensor<A>,
  effects: { readonly device: Device<A> },
  options: BackwardOptions = {},
): Backward<A> {
  const { device } = checkDevice(effects, ACTION);
  const groups = checkGroups(device, saved, gradOutput, options);
  const result = compose(device, (d) => backward(d, saved, gradOutput, groups));
  if (options.donate === true) device.free(gradOutput.data);
  return result;
}

type Ranges = ReturnType<typeof groupsOf>;

function backward<A>(
  device: Device<A>,
  saved: GhostSaved<A>,
  gradOutput: Tensor<A>,
  groups: Ranges,
): Backward<A> {
  const { input, output, moments, weight, bias, eps, residualFormat } = saved;
  const whole = groups.length === 1;
  const scratch: A[] = [];
  const take = (tensor: Tensor<A>, [from, to]: Ranges[number]) => {
    if (whole) return tensor;
    const part = samplesOf(device, tensor, from, to);
    scratch.push(part.data);
    return part;
  };
  const all = groups.map((range, i) => {
    const pass = {
      input: take(input, range),
      gradOutput: take(gradOutput, range),
      output: output ? rectifiedBy(output.activation, take(output, range)) : undefined,
      statistics: { source: "batch", moments: moments[i].data } as const,
    };
    const local = device.gradientSums(pass);
    scratch.push(local);
    const sums = { local, total: local };
    const affine = { weight, bias, eps };
    const weights = whole ? saved : weightsOfSamples(device, saved, ...range);
    if (!whole && weights.weights) scratch.push(weights.weights.data);
    const all = { ...pass, affine, sums, residualFormat: residualFormat ?? undefined };
    return gradientsOf(device, all, weights);
  });
  const sum = (a: A | null, b: A | null) => {
    if (a === null || b === null) return null;
    const both = device.addScaled({ x: a, y: b, scale: 1 });
    device.free(a, b);
    return both;
  };
  const join = (parts: readonly Tensor<A>[], like: Tensor<A>) => {
    const one = joined(device, parts, like);
    if (!whole) scratch.push(...parts.map(({ data }) => data));
    return one;
  };
  const residuals = all.map(({ gradResidual }) => gradResidual).filter((part) =>
    part !== undefined
  );
  const result: Backward<A> = Object.freeze({
    gradInput: join(all.map(({ gradInput }) => gradInput), input),
    gradWeight: all.map(({ gradWeight }) => gradWeight).reduce(sum),
    gradBias: all.map(({ gradBias }) => gradBias).reduce(sum),
    ...(residualFormat !== null && {
      gradResidual: join(residuals, tensorLike({ ...input, format: residualFormat }, input.data)),
    }),
  });
  device.free(...scratch);
  return result;
}

/** Checks a call; gives the groups. */
function checkGroups<A>(
  device: Device<A>,
  saved: GhostSaved<A>,
  gradOutput: Tensor<A>,
  options: BackwardOptions,
): Ranges {
  if (saved?.kind !== "ghost" || !Array.isArray(saved.moments)) {
    const kind = (saved as { readonly kind?: unknown } | undefined)?.kind;
    throw wrongKind(ACTION, "saved must be that of batchNormForwardGhost", kind, "kind");
  }
  checkGhost(saved.ghost, ACTION);
  const calls = saved.moments.map((moments) => {
    const plain: LocalSaved<A> = { ...saved, kind: "local", moments };
    return { saved: plain, gradOutput, options, action: ACTION };
  });
  for (const call of calls) checkSaved(call, "local", device, undefined, "BackwardGhost");
  checkDonated(calls.slice(0, 1));
  const groups = groupsOf(saved.input?.shape?.[0], saved.ghost);
  if (groups.length === calls.length) return groups;
  const wanted = "there must be moments of each group";
  throw wrongPair(ACTION, wanted, calls.length, groups.length);
}
