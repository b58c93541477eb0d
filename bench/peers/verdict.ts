/** The goals, and whether a run reached them: computed from its figures alone. */

import { type BatchShape, first, titleOf } from "../batches.ts";
import { atLeast, atMost, type Seen, undecided, type Verdict } from "../goals.ts";
import { CASES, SMALLEST } from "./cases.ts";
import { LIMIT, NARROW } from "./limit.ts";
import { caseOf, checkedOf, type Measured, OURS, rowOf } from "./measured.ts";
import { ONNX } from "./onnxruntime.ts";
import { TORCH } from "./torch.ts";

const THREADS = [1, 2] as const;
const WORKS = ["forward", "both"] as const;
const WORDS = { forward: "forward", both: "forward and backward" } as const;

/** The two shapes that onnxruntime is held against. */
const TWO = [first(32, 64, 56, 56), first(32, 256, 14, 14)];
const ALL = CASES.filter((shape) => shape !== SMALLEST);
/** A small batch, of which a call is a good part. */
const SMALL = first(256, 128);

export function verdicts(measured: Measured): Verdict[] {
  /** How many times as fast as the fastest of the peers somebody is, and where. */
  const against = (
    peers: (name: string) => boolean,
    shapes: readonly BatchShape[],
    works: readonly ("forward" | "both")[],
    counts: readonly number[],
    name = OURS,
  ) =>
    shapes.flatMap((shape) =>
      works.flatMap((work) =>
        counts.flatMap((threads): Seen[] => {
          const found = caseOf(measured, shape);
          const row = found && rowOf(found, { name, threads }, work);
          const theirs = found?.rows
            .filter((row) => peers(row.name) && row.threads === threads && row.work === work)
            .map(({ median }) => median);
          if (!row || !theirs?.length) return [];
          const where = `${titleOf(shape)}, ${WORDS[work]}, ${plural(threads)}`;
          return [{ value: Math.min(...theirs) / row.median, where }];
        })
      )
    );
  const onnx = (name: string) => name.startsWith(ONNX);
  const are = (wanted: string) => (name: string) => name === wanted;
  const errors = ALL.flatMap((shape) =>
    THREADS.flatMap((threads) => {
      const found = caseOf(measured, shape);
      const errors = found && checkedOf(found, { name: OURS, threads })?.errors;
      const where = `${titleOf(shape)}, ${plural(threads)}`;
      const seen = (name: "y" | "dx", value: number) => ({ value, where: `${name} of ${where}` });
      return errors ? [seen("y", errors.y), seen("dx", errors.dx)] : [];
    })
  );
  const micro = (shape: BatchShape, work: "forward" | "both"): Seen[] => {
    const found = caseOf(measured, shape);
    const row = found && rowOf(found, { name: OURS, threads: 1 }, work);
    return row ? [{ value: 1e3 * row.median, where: WORDS[work] }] : [];
  };
  /** Our time forward on the small batch, in times of somebody's. */
  const small = (name: string) =>
    against(are(name), [SMALL], ["forward"], THREADS)
      .map(({ value, where }) => ({ value: 1 / value, where }));
  const calls = WORKS.flatMap((work) => micro(SMALLEST, work))
    .map(({ value, where }) => `${value.toFixed(2)} us ${where}`);
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
    // A goal that does not bind it: what can be reached on the machine.
    undecided(
      "of that the C program",
      atLeast("", against(onnx, TWO, ["both"], THREADS, LIMIT), 5).figure,
    ),
    atLeast(
      "faster than PyTorch on the CPU on every shape, at equal threads",
      against(are(TORCH), ALL, WORKS, THREADS),
      1,
    ),
    undecided(
      "of that the C program with vectors of 128 bits, as Wasm has",
      atLeast("", against(are(TORCH), ALL, WORKS, THREADS, NARROW), 1).figure,
    ),
    atLeast(
      "at least 0.90 of the C program's speed with one thread",
      against(are(LIMIT), ALL, WORKS, [1]),
      0.9,
    ),
    atLeast("at least 0.85 of it with two", against(are(LIMIT), ALL, WORKS, [2]), 0.85),
    atLeast(
      "at least 0.90 of the C program with vectors of 128 bits with one thread",
      against(are(NARROW), ALL, WORKS, [1]),
      0.9,
    ),
    atLeast("at least 0.85 of that with two", against(are(NARROW), ALL, WORKS, [2]), 0.85),
    atMost("y and dx within 1e-6 of float64 at mean 1e3, std 1", errors, 1e-6),
    atMost("[256,128] forward in at most 2.2 times the C program's time", small(LIMIT), 2.2),
    atMost("[256,128] forward in at most 0.9 of that with vectors of 128 bits", small(NARROW), 0.9),
    atLeast(
      "[2,16] forward at least 8 times as fast as onnxruntime-node in training mode",
      against(are(`${ONNX}, training mode`), [SMALLEST], ["forward"], THREADS),
      8,
    ),
    undecided("what a call costs on [2,16]", calls.length > 0 ? calls.join(", ") : undefined),
  ];
}

function plural(threads: number): string {
  return threads === 1 ? "1 thread" : `${threads} threads`;
}
