/**
 * The section of bench/README.md that a run writes: verdicts, then a table per batch.
 *
 * @module
 */

import { elementsOf, titleOf } from "../batches.ts";
import { figure, paragraph, table } from "../groups/markdown.ts";
import { SMALLEST } from "./cases.ts";
import { COPY } from "./limit.ts";
import { caseOf, checkedOf, type Measured, OURS, rowOf, type Whose } from "./measured.ts";
import type { Measurement } from "./rounds.ts";
import { type Absent, PASSES, type Work } from "./subject.ts";
import { verdicts } from "./verdict.ts";

/** What stands before and after the section. */
export const MARKERS = ["<!-- peers:begin -->", "<!-- peers:end -->"] as const;

const HEAD = [
  ...["who", "threads"],
  ...["forward, ms", "GB/s", "times ours"],
  ...["forward and backward, ms", "GB/s", "times ours"],
  ...["error of y", "error of dx"],
];

/**
 * Writes the section.
 *
 * @param measured the run
 * @returns Markdown as `deno fmt` leaves it
 */
export function section(measured: Measured): string {
  const { machine, versions, rounds, date } = measured;
  return [
    paragraph(
      `Measured on ${machine}; ${versions.join(", ")}; ${date}. Median of up to ` +
        `${rounds} rounds in which everybody takes a turn (fastest round), in ms per call. GB/s is effective: 3 passes ` +
        `over the tensor forward, 8 with backward. "Times ours" is the time divided by ours with as many threads. ` +
        `Timed on x of mean 0.5 and standard deviation 1; errors are the greatest distances from float64 at mean 1e3.`,
    ),
    "### Goals",
    ...goals(measured),
    ...measured.cases.flatMap((one) => [
      `### ${titleOf(one.shape)}`,
      ...copies(one),
      caseTable(one),
      ...absences(one.absent),
    ]),
    ...(measured.absent.length > 0 ? ["### Not measured", ...absences(measured.absent)] : []),
  ].join("\n\n");
}

function goals(measured: Measured): string[] {
  const words = new Map([[true, "met"], [false, "missed"], [null, "none"]]);
  const judged = verdicts(measured);
  const missed = judged.filter(({ misses }) => misses.length > 0);
  return [
    table([
      ["goal", "measured", "verdict"],
      ...judged.map(({ goal, met, figure }) => [goal, figure, words.get(met) ?? "none"]),
    ]),
    ...(missed.length === 0 ? [] : [
      "What misses a goal:",
      missed.map(({ goal, misses }) => paragraph(`${goal}: ${misses.join("; ")}`, "- ")).join("\n"),
    ]),
  ];
}

function copies(measurement: Measurement): string[] {
  const seen = measurement.rows.filter(({ name }) => name === COPY).map((row) =>
    `${speed(measurement, "copy", row.median)} with ${row.threads}`
  );
  return seen.length === 0 ? [] : [
    paragraph(`A plain copy in C makes, in GB/s by number of threads: ${seen.join(", ")}.`),
  ];
}

function caseTable(measurement: Measurement): string {
  const keys = new Set(
    measurement.rows.filter(({ name }) => name !== COPY).map(({ name, threads }) =>
      JSON.stringify([threads, name])
    ),
  );
  const lines = [...keys].map((key): Whose => {
    const [threads, name] = JSON.parse(key);
    return { threads, name };
  }).sort((a, b) => a.threads - b.threads); // Stable: subjects keep their order.
  return table([HEAD, ...lines.map((whose) => lineOf(measurement, whose))]);
}

function lineOf(measurement: Measurement, whose: Whose): string[] {
  const cells = (work: Work) => {
    const row = rowOf(measurement, whose, work);
    if (!row) return ["", "", ""];
    const ours = rowOf(measurement, { name: OURS, threads: whose.threads }, work);
    const { median, fastest } = row;
    return [
      `${time(median)} (${time(fastest)})`,
      speed(measurement, work, median),
      ours ? (median / ours.median).toFixed(2) : "",
    ];
  };
  const errors = checkedOf(measurement, whose)?.errors;
  const error = (value: number | undefined) => value?.toExponential(1) ?? "";
  return [
    ...[whose.name, String(whose.threads)],
    ...cells("forward"),
    ...cells("both"),
    ...[error(errors?.y), error(errors?.dx)],
  ];
}

/** Milliseconds, with all digits that a few hundred nanoseconds need. */
function time(milliseconds: number): string {
  return milliseconds < 0.1 ? milliseconds.toFixed(4) : figure(milliseconds);
}

function speed({ shape }: Measurement, work: Work, milliseconds: number): string {
  const bytes = PASSES[work] * elementsOf(shape) * Float32Array.BYTES_PER_ELEMENT;
  return figure(bytes / milliseconds / 1e6);
}

function absences(absent: readonly Absent[]): string[] {
  if (absent.length === 0) return [];
  return [
    absent.map(({ name, threads, missing }) =>
      paragraph(
        `${name}${threads > 0 ? `, threads: ${threads}` : ""} is not measured: ${missing}.`,
        "- ",
      )
    ).join("\n"),
  ];
}

/** One line about the run, for the end of the log. */
export function summary(measured: Measured): string {
  const smallest = caseOf(measured, SMALLEST);
  const call = smallest && rowOf(smallest, { name: OURS, threads: 1 }, "forward");
  const met = verdicts(measured).map(({ met }) => met);
  const count = (wanted: boolean) => met.filter((one) => one === wanted).length;
  return `${count(true)} goals met, ${count(false)} missed` +
    (call ? `; a forward call costs ${(1e3 * call.median).toFixed(2)} us` : "");
}
