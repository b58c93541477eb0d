/**
 * What a layer did, in few numbers.
 *
 * @module
 */

import * as bn from "../../mod.ts";

/** What {@linkcode look} sees; plain data. */
export interface Seen {
  /** Shape of this rank's output. */
  readonly shape: readonly number[];
  /** Mean of each channel of the output over all ranks of the group. */
  readonly mean: readonly number[];
  /** Biased variance of each channel of the output over all ranks of the group. */
  readonly variance: readonly number[];
  /** Running mean of each channel after the batch. */
  readonly runningMean: readonly number[];
  /** Running unbiased variance of each channel after the batch. */
  readonly runningVar: readonly number[];
}

/**
 * Looks at what a layer did, over the group that it did it with.
 *
 * @param forward what `applyLayer` resolved to
 * @param device where it lives
 * @param group the ranks to look at together
 * @returns shape, statistics and running statistics
 */
export async function look<A>(
  { output, layer }: bn.LayerForward<A>,
  device: bn.Device<A>,
  group: bn.ReduceGroup,
): Promise<Seen> {
  const moments = device.toWire(device.moments({ input: output }));
  const [count, ...rest] = await group.allReduce(moments, bn.combineMoments, { label: "look" });
  const channels = output.shape[1];
  const { runningMean, runningVar } = await bn.stateToHost(device, layer.state);
  return {
    shape: output.shape,
    mean: rest.slice(0, channels),
    variance: rest.slice(channels).map((m2) => m2 / count),
    runningMean: [...runningMean ?? []],
    runningVar: [...runningVar ?? []],
  };
}
