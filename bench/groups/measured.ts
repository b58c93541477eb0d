/**
 * What was measured of groups and their peers, and what one fold of the library's own combines takes.
 *
 * @module
 */

import { combineMoments, sum } from "../../mod.ts";
import { workTimes } from "../measure.ts";
import type { GroupRow, MissingPeer } from "./peers.ts";

/** What `measured.json` holds. */
export interface Measured {
  /** Day of the measurement, ISO 8601. */
  readonly date: string;
  /** Processor and system. */
  readonly machine: string;
  /** Deno, and each MPI. */
  readonly versions: readonly string[];
  /** How long things take; folds have 1 rank. */
  readonly rows: readonly GroupRow[];
  /** What was not measured, and why. */
  readonly missing?: readonly MissingPeer[];
  /** What synchronising adds to a training step of the demo. */
  readonly steps?: readonly StepRow[];
}

/** A training step of the demo's network, all ranks together. */
export interface StepRow {
  /** Where the ranks are. */
  readonly group: string;
  readonly ranks: number;
  /** Milliseconds per step with batch norm over each rank's own images, and over those of all ranks. */
  readonly local: number;
  readonly sync: number;
}

/** The name of a fold's rows. */
export const foldSubject = (combine: string): string => `${combine}, one fold`;

const ROUNDS = 9;

/**
 * Measures the library's combines.
 *
 * @param lengths numbers of float64, odd as those of moments are
 * @returns a row per combine and length
 */
export async function measureFolds(lengths: readonly number[]): Promise<GroupRow[]> {
  const folds = lengths.flatMap((length) => {
    const [a, b] = [1, 2].map((scale) => Float64Array.from({ length }, (_, i) => scale * (i + 1)));
    return [combineMoments, sum].map((combine) => ({
      subject: foldSubject(combine.name),
      ranks: 1,
      length,
      run: () => combine(a, b),
    }));
  });
  const rounds: number[][] = [];
  for (let round = 0; round < ROUNDS; round++) rounds.push(await workTimes(folds, 1));
  return folds.map(({ subject, ranks, length }, i) => {
    const times = rounds.map((round) => round4(1e3 * round[i])).sort((a, b) => a - b);
    return {
      subject,
      ranks,
      length,
      microseconds: { median: times[ROUNDS >> 1], fastest: times[0] },
    };
  });
}

function round4(value: number): number {
  return Number(value.toFixed(4));
}
