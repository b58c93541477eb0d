/**
 * The goals, and whether a run reached them: computed from its figures alone, and no speed from those of a software adapter.
 *
 * @module
 */

import { bytesOf, speedOf, titleOfCase, type Work } from "./cases.ts";
import { COPIES } from "./ours.ts";
import type { MeasuredCase, MeasuredGpu } from "./section.ts";
import { SYNC_KERNELS } from "./torch.ts";

/** A goal, and what was measured. */
export interface Verdict {
  readonly goal: string;
  /** Whether it was reached; null where it was not measured. */
  readonly met: boolean | null;
  /** The worst figure, with where it was seen. */
  readonly figure: string;
}

interface Seen {
  readonly value: number;
  readonly where: string;
}

/** The GPU's times, or the wall's where it has no clock. */
export function timesOf({ ours: { gpu, wall } }: MeasuredCase) {
  return gpu ?? wall;
}

/** GB/s of the faster copy of a case. */
export function copySpeed(one: MeasuredCase): number {
  const times = timesOf(one);
  return 2 * bytesOf(one.ours.case) / Math.min(...COPIES.map((copy) => times[copy])) / 1e6;
}

/**
 * Judges a run.
 *
 * @param measured the run
 * @returns every goal of the issue
 */
export function verdicts(measured: MeasuredGpu): readonly Verdict[] {
  const cases = measured.software ? [] : measured.cases;
  const plain = cases.filter(({ ours }) => !ours.case.fused);
  const seen = (
    among: readonly MeasuredCase[],
    works: readonly Work[],
    value: (one: MeasuredCase, work: Work) => number | undefined,
  ) =>
    among.flatMap((one) =>
      works.flatMap((work): Seen[] => {
        const found = value(one, work);
        const where = `${titleOfCase(one.ours.case)}, ${work}`;
        return found === undefined ? [] : [{ value: found, where }];
      })
    );
  const share = (one: MeasuredCase, work: Work) =>
    speedOf(one.ours.case, work, timesOf(one)[work]) / copySpeed(one);
  const both = (times: Partial<Readonly<Record<Work, number>>> | undefined) =>
    times?.forward === undefined || times.backward === undefined
      ? undefined
      : times.forward + times.backward;
  const faster = (row: string) => (one: MeasuredCase) => {
    const [theirs, mine] = [both(one.torch?.[row]), both(timesOf(one))];
    return theirs === undefined || mine === undefined ? undefined : theirs / mine;
  };
  const sixtyFour = plain.filter(({ ours: { case: { batch: { shape, format } } } }) =>
    shape[1] === 64 && format === "channelsFirst"
  );
  // Software is as exact as others.
  const exact = measured.cases.filter(({ ours }) => ours.case.dtype === "float32");
  return [
    atLeast(
      "forward and backward each at least 85 % of the copy's bandwidth",
      seen(plain, ["forward", "backward"], share),
      0.85,
    ),
    atLeast(
      "forward and backward at least 1.5 times as fast as SyncBatchNorm's kernels, channels first, C = 64",
      seen(sixtyFour, ["forward"], faster(SYNC_KERNELS)),
      1.5,
    ),
    ...["F.batch_norm, cuDNN", "F.batch_norm"].map((row) =>
      atLeast(
        `forward and backward at least as fast as ${row} everywhere`,
        seen(plain, ["forward"], faster(row)),
        1,
      )
    ),
    atMost(
      "y and dx within 2e-6 of float64 at mean 1e3, std 1, float32",
      exact.flatMap(({ ours: { case: one, errors } }): Seen[] => [
        { value: errors.y, where: `y of ${titleOfCase(one)}` },
        { value: errors.dx, where: `dx of ${titleOfCase(one)}` },
      ]),
      2e-6,
    ),
  ];
}

function atLeast(goal: string, all: readonly Seen[], least: number): Verdict {
  const [worst] = all.toSorted((a, b) => a.value - b.value);
  if (!worst) return { goal, met: null, figure: "not measured" };
  const reached = all.filter(({ value }) => value >= least).length;
  const figure = `${
    worst.value.toFixed(2)
  } at worst (${worst.where}), reached in ${reached} of ${all.length}`;
  return { goal, met: worst.value >= least, figure };
}

function atMost(goal: string, all: readonly Seen[], most: number): Verdict {
  const [worst] = all.toSorted((a, b) => b.value - a.value);
  if (!worst) return { goal, met: null, figure: "not measured" };
  const figure = `${worst.value.toExponential(1)} at worst (${worst.where})`;
  return { goal, met: worst.value <= most, figure };
}
