/** The goals, and whether a run reached them: computed from its figures alone. */

import { type BatchShape, first, titleOf } from "../batches.ts";
import { atLeast, atMost, type Seen, undecided, type Verdict } from "../goals.ts";
import { CASES, SMALLEST } from "./cases.ts";
import { LIMIT, NARROW } from "./limit.ts";
import { caseOf, checkedOf, type Measured, OURS, rowOf } from "./measured.ts";
import { ONNX } from "./onnxruntime.ts";
import type { Measurement } from "./rounds.ts";
import { TORCH } from "./torch.ts";

const THREADS = [1, 2] as const;
const WORKS = ["forward", "both"] as const;
const WORDS = { forward: "forward", both: "forward and backward" } as const;

/** The two shapes that onnxruntime is held against. */
const TWO = [first(32, 64, 56, 56), first(32, 256, 14, 14)];
const MATRIX = first(256, 128);
/** Where speed counts. */
const ALL = CASES.filter((shape) => shape !== SMALLEST);

export function verdicts(measured: Measured): Verdict[] {
  const against = (
    peers: (name: string) => boolean,
    shapes: readonly BatchShape[],
    works: readonly ("forward" | "both")[],
    threads: readonly number[],
    whose = OURS,
  ) =>
    shapes.flatMap((shape) =>
      works.flatMap((work) =>
        threads.flatMap((count) => ratio(caseOf(measured, shape), whose, peers, work, count))
      )
    );
  const onnx = (name: string) => name.startsWith(ONNX);
  const limit = (name: string) => name === LIMIT;
  const narrow = (name: string) => name === NARROW;
  const torch = (name: string) => name === TORCH;
  const errors = ALL.flatMap((shape) => errorsOf(caseOf(measured, shape)));
  const micro = (shape: BatchShape, work: "forward" | "both", threads = 1): Seen[] => {
    const found = caseOf(measured, shape);
    const row = found && rowOf(found, { name: OURS, threads }, work);
    return row ? [{ value: 1e3 * row.median, where: WORDS[work] }] : [];
  };
  return [
    atLeast(
      "forward at least 2.4 times as fast as onnxruntime-node at equal threads, first two shapes",
      against(onnx, TWO, ["forward"], THREADS),
      2.4,
    ),
    atLeast(
      "forward and backward at least 5 times as fast as onnxruntime-node at equal threads, first two shapes",
      against(onnx, TWO, ["both"], THREADS),
      5,
    ),
    compared(
      "of that the C program",
      atLeast("", against(onnx, TWO, ["both"], THREADS, LIMIT), 5),
    ),
    atLeast(
      "faster than PyTorch on the CPU on every shape, at equal threads",
      against(torch, ALL, WORKS, THREADS),
      1,
    ),
    atLeast(
      "at least 0.90 of the C program's speed with one thread",
      against(limit, ALL, WORKS, [1]),
      0.9,
    ),
    atLeast("at least 0.85 of it with two", against(limit, ALL, WORKS, [2]), 0.85),
    atLeast(
      "at least 0.90 of the C program with vectors of 128 bits, as Wasm has, with one thread",
      against(narrow, ALL, WORKS, [1]),
      0.9,
    ),
    atLeast("at least 0.85 of that with two", against(narrow, ALL, WORKS, [2]), 0.85),
    atMost("y and dx within 1e-6 of float64 at mean 1e3, std 1", errors, 1e-6),
    atMost("[256,128] forward within 10 us", micro(MATRIX, "forward"), 10, " us"),
    stated("what a call costs on [2,16]", WORKS.flatMap((work) => micro(SMALLEST, work))),
  ];
}

/** How many times as fast as the fastest of the peers somebody is. */
function ratio(
  measurement: Measurement | undefined,
  whose: string,
  peers: (name: string) => boolean,
  work: "forward" | "both",
  threads: number,
): Seen[] {
  if (!measurement) return [];
  const row = rowOf(measurement, { name: whose, threads }, work);
  const theirs = measurement.rows
    .filter((row) => peers(row.name) && row.threads === threads && row.work === work)
    .map(({ median }) => median);
  if (!row || theirs.length === 0) return [];
  const where = `${titleOf(measurement.shape)}, ${WORDS[work]}, ${plural(threads)}`;
  return [{ value: Math.min(...theirs) / row.median, where }];
}

function errorsOf(measurement: Measurement | undefined): Seen[] {
  if (!measurement) return [];
  return THREADS.flatMap((threads) => {
    const errors = checkedOf(measurement, { name: OURS, threads })?.errors;
    const where = `${titleOf(measurement.shape)}, ${plural(threads)}`;
    return errors
      ? [{ value: errors.y, where: `y of ${where}` }, { value: errors.dx, where: `dx of ${where}` }]
      : [];
  });
}

/** The figure of a goal for somebody whom it does not bind: what can be reached on the machine. */
function compared(who: string, { figure }: Verdict): Verdict {
  return undecided(who, figure);
}

function stated(goal: string, seen: readonly Seen[]): Verdict {
  if (seen.length === 0) return undecided(goal);
  const figures = seen.map(({ value, where }) => `${value.toFixed(2)} us ${where}`);
  return undecided(goal, figures.join(", "));
}

function plural(threads: number): string {
  return threads === 1 ? "1 thread" : `${threads} threads`;
}
