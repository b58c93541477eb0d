/**
 * What the demo says in the end: a table and a verdict, as plain strings.
 *
 * @module
 */

import { type Comparison, FIRST_STEPS, type Result } from "./compare.ts";
import type { GroupName } from "./flags.ts";

/** Whether syncbn kept its promise, and how to say it. */
export interface Verdict {
  readonly kept: boolean;
  readonly text: string;
}

/** Largest difference of any parameter from one process that is allowed within the first steps. */
export const LARGEST_DIFFERENCE = 1e-5;
/** Why there is no local batch norm over one image. */
export const IMPOSSIBLE = "impossible: one value per channel";
const LARGEST_POINTS = 1;

/**
 * Lays the runs out as a table.
 *
 * @param comparison all runs
 * @returns lines of equal columns
 */
export function table({ steps, results }: Comparison): string {
  const early = Math.min(FIRST_STEPS, steps);
  const rows = [
    ["", "accuracy", "loss", `difference after ${stepsOf(early)}`, "at the end", "ms per step"],
    ...Object.values(results).map((result) => {
      const last = result.exams.at(-1);
      if (last === undefined) {
        return [result.title, IMPOSSIBLE, "", "", "", ""];
      }
      return [
        result.title,
        `${percent(last.accuracy)} %`,
        last.loss.toFixed(3),
        ...(result.name === "one" || result.name === "none"
          ? ["-", "-"]
          : [difference(result, early), difference(result, steps)].map(scientific)),
        result.msPerStep.toFixed(2),
      ];
    }),
  ];
  const width = (column: number) =>
    Math.max(...rows.filter((row) => row[2] !== "").map((row) => row[column].length));
  return rows.map(([title, ...cells]) =>
    [title.padEnd(width(0)), ...cells.map((cell, i) => cell.padStart(width(i + 1)))]
      .join("   ").trimEnd()
  ).join("\n");
}

/**
 * Explains the columns of {@linkcode table}.
 *
 * @param group where the replicas were
 * @returns a few lines
 */
export function tableNotes(group: GroupName): string {
  return `\
Accuracy and loss: on the held-out images, by replica 0 with its running statistics.
Difference: the largest of any parameter from the first row's. Later on, rounding alone can set two
runs apart, as the reversed rows show. Time: of all replicas together, ${FROM[group]},
the other layers included, which are no part of the library: they take what "no norm" takes.`;
}

const FROM: Readonly<Record<GroupName, string>> = {
  "in-process": "from one thread",
  "workers": "each from a thread of its own",
  "mpi": "each from a process of its own",
};

/**
 * Says whether replicas with syncbn equal one process.
 *
 * Runs that were stopped on the way are judged by their parameters alone: while the learning rate is still high, a
 * difference of rounding may be worth more than a point of accuracy for a while, in either direction.
 *
 * @param comparison all runs
 * @returns the verdict
 */
export function judge(
  { steps, planned, replicas, results: { one, control, sync } }: Comparison,
): Verdict {
  const early = Math.min(FIRST_STEPS, steps);
  const largest = Math.max(...sync.distances.slice(0, early).map((distance) => distance.largest));
  const rounding = Math.max(...control.distances.slice(0, early).map((other) => other.largest));
  const [here, there] = [sync, one].map(({ exams }) => 100 * (exams.at(-1)?.accuracy ?? NaN));
  const points = Math.abs(here - there);
  // Compared this way round, NaN breaks the promise.
  const close = largest <= LARGEST_DIFFERENCE;
  const stopped = steps < planned;
  const accurate = stopped || points <= LARGEST_POINTS;
  const kept = close && accurate;
  const subject = `${replicas} ${replicas === 1 ? "replica" : "replicas"} with syncbn`;
  return {
    kept,
    text: [
      `${subject} ${
        kept
          ? (replicas === 1 ? "equals" : "equal")
          : replicas === 1
          ? "DIFFERS FROM"
          : "DIFFER FROM"
      } one process.`,
      `Largest difference of any parameter within the first ${stepsOf(early)}: ` +
      `${scientific(largest)} (${close ? "" : "TOO LARGE, "}allowed ` +
      `${scientific(LARGEST_DIFFERENCE)}; reversed rows alone make ${scientific(rounding)}).`,
      `Accuracy ${stopped ? `after ${stepsOf(steps)}` : "at the end"}: ` +
      `${here.toFixed(1)} and ${there.toFixed(1)} % (${
        stopped
          ? `not judged, as the runs were stopped before their ${planned} steps`
          : `${accurate ? "" : "TOO FAR APART, "}allowed ${LARGEST_POINTS} point`
      }).`,
    ].join("\n"),
  };
}

/**
 * Says whether replicas with syncbn have the bits of one process, as they must on an exact device, whatever the order of the rows.
 *
 * @param comparison all runs
 * @returns the verdict
 */
export function judgeExactly({ replicas, results: { one, control, sync } }: Comparison): Verdict {
  const kept = [control, sync].every(({ digest }) => digest === one.digest);
  const subject = `${replicas} ${replicas === 1 ? "replica" : "replicas"} with syncbn`;
  const verb = kept ? (replicas === 1 ? "has" : "have") : "DOES NOT HAVE";
  const digests = [one, control, sync].map(({ title, digest }) => `${digest}  ${title}`);
  return {
    kept,
    text: [`${subject} ${verb} the bits of one process. Digests of the parameters:`, ...digests]
      .join("\n"),
  };
}

/** Writes a share as a percentage with one decimal. */
export function percent(share: number): string {
  return (100 * share).toFixed(1);
}

/** Writes a number of steps. */
export function stepsOf(count: number): string {
  return count === 1 ? "1 step" : `${count} steps`;
}

/** Writes a small number with two digits. */
export function scientific(value: number): string {
  return value === 0 ? "0" : value.toExponential(1);
}

function difference({ distances }: Result, step: number): number {
  return distances.find((distance) => distance.step === step)?.largest ?? NaN;
}
