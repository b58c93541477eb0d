/** Samples of a batch as a batch, with their weights, and a batch of its parts. */

import type { Device } from "../device.ts";
import { type Tensor, tensorLike } from "../tensor.ts";
import { checkPass } from "./check_call.ts";
import type { Weights } from "./weights.ts";

/** Samples [from, to) of a tensor. They may share its memory: neither is to be given up. */
export function samplesOf<A>(
  device: Device<A>,
  input: Tensor<A>,
  from: number,
  to: number,
): Tensor<A> {
  checkPass(device, "arrange", "take samples of the batch");
  const [, ...sample] = input.shape;
  const data = device.arrange!({ parts: [{ input, from, to }] });
  return tensorLike({ ...input, shape: [to - from, ...sample] }, data);
}

/** Weights of samples [from, to). */
export function weightsOfSamples<A>(
  device: Device<A>,
  { weights, lengths }: Weights<A>,
  from: number,
  to: number,
): Weights<A> {
  return {
    weights: weights && samplesOf(device, weights, from, to),
    lengths: lengths?.subarray(from, to),
  };
}

/** Parts as a tensor like another; a single one becomes it without a copy. */
export function joined<A>(
  device: Device<A>,
  parts: readonly Tensor<A>[],
  like: Tensor<A>,
): Tensor<A> {
  if (parts.length === 1) return tensorLike(like, parts[0].data);
  checkPass(device, "arrange", "join the parts of the batch");
  const all = parts.map((input) => ({ input, from: 0, to: input.shape[0] }));
  return tensorLike(like, device.arrange!({ parts: all }));
}
