/**
 * One training step of a ResNet-50 on paper: a collective per batch norm and direction, by each algorithm.
 *
 * @module
 */

import {
  type Algorithm,
  allGather,
  fit,
  type Link,
  type Machine,
  recursiveDoubling,
  type Schedule,
  timeOf,
  type Wire,
} from "./model.ts";
import type { GroupRow } from "./peers.ts";

/** What synchronization adds to a step. */
export interface Step {
  /** Time of all collectives, one after the other. */
  readonly seconds: number;
  /** Bytes that the busiest rank sends. */
  readonly sent: number;
}

/** A way to synchronize a step over so many ranks, of which so many share a host. */
export type Strategy = (ranks: number, machine: Machine, perHost: number) => Step;

/** Float64 that the MPI group compares before each collective. */
const AGREEMENT = 10;

/**
 * Channels of the 53 batch norms of a ResNet-50, in order (He, Zhang, Ren, Sun 2016, "Deep residual learning for image
 * recognition", table 1): the stem; per block two of its width and one of four times that; a shortcut per stage.
 */
export const RESNET_50: readonly number[] = [
  64,
  ...([[64, 3], [128, 4], [256, 6], [512, 3]] as const).flatMap(([width, blocks]) => [
    ...Array.from({ length: blocks }, () => [width, width, 4 * width]).flat(),
    4 * width,
  ]),
];

/** What this library sends: forward [count, mean C, m2 C], backward [sumDy C, sumDyXmu C], float64. */
export const OUR_WIRES = [{ perChannel: 16, header: 8 }, { perChannel: 16, header: 0 }] as const;

/** The same numbers in float32, as torch.nn.SyncBatchNorm sends them. */
const TORCH_WIRES = [{ perChannel: 8, header: 4 }, { perChannel: 8, header: 0 }] as const;

/**
 * Synchronizes as this library does: an all-reduce forward, another backward. Sums are taken to cost what merges do.
 *
 * @param algorithm of both
 */
export function ours(algorithm: Algorithm): Strategy {
  return (ranks, machine, perHost) =>
    collect(
      OUR_WIRES.flatMap((wire) =>
        RESNET_50.map((channels) => algorithm(ranks, { ...wire, channels }, perHost))
      ),
      machine,
    );
}

/**
 * Synchronizes as PyTorch does: forward an all-gather of every rank's 2C + 1 numbers, backward an all-reduce. Both are
 * given the fewest rounds possible, and what they fold, which a GPU does, counts nothing.
 */
export const pytorch: Strategy = (ranks, machine, perHost) => {
  const [forward, backward] = TORCH_WIRES;
  const schedules = RESNET_50.flatMap((channels) => [
    allGather(ranks, { ...forward, channels }, perHost),
    recursiveDoubling(ranks, { ...backward, channels }, perHost),
  ]);
  return collect(schedules, { ...machine, gamma: 0 });
};

/** The agreement checks of the MPI group: one more all-reduce before each. */
export const agreement: Strategy = (ranks, machine, perHost) => {
  const wire: Wire = { channels: AGREEMENT, perChannel: 8, header: 0 };
  const one = recursiveDoubling(ranks, wire, perHost);
  return collect(
    Array.from({ length: OUR_WIRES.length * RESNET_50.length }, () => one),
    machine,
  );
};

/** Bytes that PyTorch's all-gather leaves on each rank for a layer. */
export function gatheredBytes(ranks: number, channels: number): number {
  const [{ perChannel, header }] = TORCH_WIRES;
  return ranks * (header + channels * perChannel);
}

/**
 * The links within a host and the cost of a fold, from measurements.
 *
 * Over 2 ranks an all-reduce is one exchange: its times over the lengths give alpha and beta, the sum's own fold
 * included. Folds of one rank give gamma; the constant part of a fold, the call, is left out.
 *
 * @param rows measurements
 * @param reduction the subject whose all-reduces over 2 ranks count
 * @param folds the subject whose folds count
 * @returns the link and gamma, with the largest relative error of each fit
 * @throws RangeError where there are too few of them, or they do not grow with the length
 */
export function calibrate(
  rows: readonly GroupRow[],
  reduction: string,
  folds: string,
): { readonly local: Link; readonly gamma: number; readonly errors: readonly [number, number] } {
  const line = (subject: string, ranks: number) =>
    fit(
      rows.filter((row) => row.subject === subject && row.ranks === ranks)
        .map(({ length, microseconds }) => ({
          bytes: 8 * length,
          seconds: microseconds.median / 1e6,
        })),
    );
  const { error, ...local } = line(reduction, 2);
  const fold = line(folds, 1);
  const least = Math.min(local.alpha, local.beta, fold.beta);
  if (!(least > 0)) {
    throw new RangeError(
      `Cannot calibrate the model as alpha, beta and gamma must be positive: the least is ${least}`,
    );
  }
  return { local, gamma: fold.beta, errors: [error, fold.error] };
}

function collect(schedules: readonly Schedule[], machine: Machine): Step {
  return {
    seconds: schedules.reduce((total, schedule) => total + timeOf(schedule, machine), 0),
    sent: schedules.reduce((total, { sent }) => total + sent, 0),
  };
}
