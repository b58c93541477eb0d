/**
 * Where a kernel takes its statistics from: the moments of a batch, or the running statistics of a state.
 *
 * @module
 */

import { channels, channelsResult, type Kernel, kernel, type Storage } from "./kernel.ts";
import { ALGEBRA_PARAMETERS, climb, GATHER, MERGE } from "./moments_algebra.ts";
import { entry, type Tile, TILE_PARAMETERS, tiles } from "./tiles.ts";

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

/** WGSL: `statistics`, the moments of an invocation's channel; running ones are those of one value with that m2. */
export function statistics(source: Source, tile: Tile): string {
  if (source === "batch") {
    return `${MERGE}${climb(tile)}${GATHER}
fn statistics(place: Place, thread: u32) -> vec4f {
  return gather(place, thread);
}
`;
  }
  return `
fn statistics(place: Place, thread: u32) -> vec4f {
  let c = place.channel;
  return vec4f(mean[p.meanAt + c], 0.0, variance[p.varianceAt + c], 1.0);
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
  let whole = statistics(place, thread);
  if (place.row == 0u && place.channel < p.channels) {
    merged[p.mergedAt + place.channel] = whole;
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
  if (place.row > 0u || place.channel >= p.channels) { return; }
  let c = place.channel;
  let unbiased = batch.z / (batch.w - 1.0);
  newMean[p.newMeanAt + c] = p.keep * oldMean[p.oldMeanAt + c] + p.factor * batch.x + p.factor * batch.y;
  newVar[p.newVarAt + c] = p.keep * oldVar[p.oldVarAt + c] + p.factor * unbiased;
}
`,
  });
}
