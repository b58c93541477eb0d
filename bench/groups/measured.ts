/**
 * Measures what the model of `scale.ts` is calibrated by, on a machine that should have nothing else to do, and writes
 * it to `measured.json`: the peers of `peers.ts`, and what one fold of the library's own combines takes.
 *
 * `deno run --allow-run --allow-read --allow-write bench/groups/calibrate.ts
 * --machine "an AMD EPYC" [ranks...]`
 *
 * @module
 */

import { parseArgs } from "node:util";
import { mergeMoments, sum } from "../../mod.ts";
import { workTimes } from "../measure.ts";
import { type GroupRow, LENGTHS, measurePeers } from "./peers.ts";

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
    return [mergeMoments, sum].map((combine) => ({
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

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { machine: { type: "string", default: "a processor that nobody named" } },
  });
  const ranks = positionals.length > 0 ? positionals.map(Number) : [2, 4];
  const { os, arch } = Deno.build;
  const folds = await measureFolds(LENGTHS);
  const { rows, missing, libraries } = await measurePeers({ ranks, lengths: LENGTHS });
  for (const { subject, ranks, missing: reason } of missing) {
    console.error(`${subject}, ${ranks} ranks, is not measured: ${reason}`);
  }
  const measured: Measured = {
    date: new Date().toISOString().slice(0, 10),
    machine: `${os} ${arch}, ${navigator.hardwareConcurrency} cores of ${values.machine}`,
    versions: [`Deno ${Deno.version.deno}`, ...libraries],
    rows: [...rows, ...folds],
  };
  await Deno.writeTextFile(
    new URL("measured.json", import.meta.url),
    `${JSON.stringify(measured, null, 2)}\n`,
  );
}
