/**
 * Where a kernel takes its statistics from: the moments of a batch, or the running statistics of a state.
 *
 * @module
 */

import { channels, channelsResult, type Kernel, kernel, type Storage } from "./kernel.ts";
import { algebra, ALGEBRA_PARAMETERS, climb, gather, writeMoments } from "./moments_algebra.ts";
import { entry, members, ofChannels, type Tile, TILE_PARAMETERS, tiles } from "./tiles.ts";

/** Moments of a batch, or a state's mean and variance. */
export type Source = "batch" | "running";

/** Parameters of every kernel that takes statistics. */
export const STATISTICS_PARAMETERS = {
  ...ALGEBRA_PARAMETERS,
  /** Slices per channel of the moments; of no use with running statistics. */
  momentsSlices: "u32",
} as const;

/** The storage buffers of a source. */
export function statisticsStorage(source: Source): Record<string, Storage | null> {
  const batch = source === "batch";
  return {
    moments: batch ? channels("vec4f") : null,
    mean: batch ? null : channels("f32"),
    variance: batch ? null : channels("f32"),
  };
}

/** WGSL: `statistics`, the moments of an invocation's lane; running ones are those of one value with that m2. */
export function statistics(source: Source, tile: Tile): string {
  const { given, taken } = members(tile);
  if (source === "batch") {
    return `${algebra(tile)}${climb(tile)}${gather(tile)}
fn statistics(place: Place, thread: u32${taken}) -> Moments {
  return gather(place, thread${given});
}
`;
  }
  const of = (name: string) => ofChannels(tile, (channel) => `${name}[p.${name}At + ${channel}]`);
  return `${algebra(tile)}
fn statistics(place: Place, thread: u32${taken}) -> Moments {
  let c = place.channel;
  return Moments(${of("mean")}, Statistic(0.0), ${of("variance")}, 1.0);
}
`;
}

/**
 * Moments of all slices as moments of one: what goes to the wire.
 *
 * @param options how workgroups are made up
 * @returns the kernel: moments -> merged
 */
export function mergedMomentsKernel(options: Tile): Kernel {
  return kernel({
    name: "mergedMoments",
    options,
    storage: { ...statisticsStorage("batch"), merged: channelsResult("vec4f") },
    parameters: { ...TILE_PARAMETERS, ...STATISTICS_PARAMETERS },
    body: `${tiles(options)}${statistics("batch", options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  let whole = statistics(place, thread${members(options).given});
  if (place.row == 0u && exists(place)) {
    let c = place.channel;
    ${writeMoments(options, "merged", (channel) => `p.mergedAt + ${channel}`)}
  }
}
`,
  });
}

const RUNNING_PARAMETERS = {
  ...TILE_PARAMETERS,
  ...STATISTICS_PARAMETERS,
  /** 1 - factor, rounded once. */
  keep: "f32",
  /** Weight of the batch. */
  factor: "f32",
} as const;

/**
 * Running statistics after a batch: keep * old + factor * observed, with the unbiased variance m2 / (count - 1).
 *
 * @param options how workgroups are made up
 * @returns the kernel: moments, oldMean, oldVar -> newMean, newVar
 */
export function runningStatsKernel(options: Tile): Kernel {
  return kernel({
    name: "runningStats",
    options,
    storage: {
      ...statisticsStorage("batch"),
      oldMean: channels("f32"),
      oldVar: channels("f32"),
      newMean: channelsResult("f32"),
      newVar: channelsResult("f32"),
    },
    parameters: RUNNING_PARAMETERS,
    body: `${tiles(options)}${statistics("batch", options)}
${entry(options)} {
  let place = locate(group, grid, thread);
  let batch = statistics(place, thread);
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  let unbiased = batch.m2 / (batch.count - 1.0);
  newMean[p.newMeanAt + c] = p.keep * oldMean[p.oldMeanAt + c] + p.factor * batch.mean + p.factor * batch.short;
  newVar[p.newVarAt + c] = p.keep * oldVar[p.oldVarAt + c] + p.factor * unbiased;
}
`,
  });
}
