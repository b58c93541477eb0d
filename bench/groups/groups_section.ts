/**
 * The section of bench/README.md about groups: tables, and what was to be reached, all from what was measured.
 *
 * @module
 */

import { BLOCKS } from "../../examples/blocks.ts";
import { nameOf } from "./engines.ts";
import { count, figure, paragraph, table } from "./markdown.ts";
import { foldSubject, type Measured } from "./measured.ts";
import { type GroupRow, LENGTHS } from "./peers.ts";

/** A length that only the unchecked engines are timed with: that of an agreement. */
export const AGREEMENT_LENGTH = 10;

/**
 * Writes the section.
 *
 * @param measured what was measured
 * @returns Markdown as `deno fmt` leaves it, without a heading
 */
export function groupsSection(measured: Measured): string {
  const { machine, versions, date, rows, missing = [] } = measured;
  const worlds = [...new Set(rows.map(({ ranks }) => ranks))].filter((ranks) => ranks > 1);
  return [
    paragraph(
      `Microseconds per all-reduce of 2C + 1 float64, median of 9 rounds (fastest), on the slowest ` +
        `rank; the lengths are those of C = 64, 512, 4096 and 65,536 channels. A round is a barrier ` +
        `and as many calls in a row as take 20 ms. Every total is checked first. The peers are MPI ` +
        `itself in C (\`raw_mpi.c\`) and mpi4py, from one buffer to another; "non-blocking" is ` +
        `MPI_Iallreduce with MPI_Test, which is what our MPI group does. Its ranks run with ` +
        `\`--v8-flags=--single-threaded\`: with as many ranks as cores, V8's own threads would take ` +
        `a core from the other rank; so do those of the workers.`,
    ),
    paragraph(`Measured on ${machine}; ${versions.join(", ")}; ${date}.`),
    ...worlds.flatMap((ranks) => [`### ${ranks} ranks`, reductions(rows, ranks)]),
    ...(missing.length > 0 ? [missingList(measured)] : []),
    "### What was to be reached",
    targets(rows),
    paragraph(
      `What MPI's calls miss is the price of the interface more than of the FFI: values are copied, so ` +
        `that a caller may go on writing to its array, and every result is a new array, where the loop ` +
        `in C uses two buffers again and again. In a world of one, where nothing travels, a call of ` +
        `1,025 values took 2.5 us and one of 131,073 took 85 us; the pages of a new MiB are most of ` +
        `that, and the collector comes on top, on both ranks in turn.`,
    ),
    "### What synchronising adds to a training step",
    steps(measured),
  ].join("\n\n");
}

function reductions(rows: readonly GroupRow[], ranks: number): string {
  const of = rows.filter((row) => row.ranks === ranks);
  const subjects = [...new Set(of.map(({ subject }) => subject))];
  const cell = (subject: string, length: number): string => {
    const row = of.find((row) => row.subject === subject && row.length === length);
    if (!row) return "";
    const { median, fastest } = row.microseconds;
    return `${figure(median)} (${figure(fastest)})`;
  };
  return table([
    ["all-reduce, us", ...LENGTHS.map(count)],
    ...subjects.map((subject) => [subject, ...LENGTHS.map((length) => cell(subject, length))]),
  ]);
}

function missingList({ missing = [] }: Measured): string {
  const lines = missing.map(({ subject, ranks, missing: why }) =>
    `${subject}, ${ranks} ranks: ${why}`
  );
  return ["Not measured:", lines.map((line) => paragraph(line, "- ")).join("\n")].join("\n\n");
}

/** A bound, and what came of it. */
interface Target {
  readonly what: string;
  readonly bound: string;
  readonly measured: number | undefined;
  readonly most: number | undefined;
  readonly unit: "us" | "x";
}

function targets(rows: readonly GroupRow[]): string {
  const [, short, , long] = LENGTHS;
  const median = (subject: string, length: number, ranks = 2): number | undefined =>
    rows.find((row) => row.subject === subject && row.length === length && row.ranks === ranks)
      ?.microseconds.median;
  const ratio = (a?: number, b?: number) => a === undefined || b === undefined ? undefined : a / b;
  const list: Target[] = [
    {
      what: `workers, blocking, 2 ranks, ${count(short)}`,
      bound: "15 us",
      measured: median(nameOf("workers, blocking", "sum"), short),
      most: 15,
      unit: "us",
    },
    {
      what: "combineMoments against sum, one fold, the worst length",
      bound: "2 x",
      measured: Math.max(...LENGTHS.map((length) =>
        ratio(
          median(foldSubject("combineMoments"), length, 1),
          median(foldSubject("sum"), length, 1),
        ) ?? NaN
      )),
      most: 2,
      unit: "x",
    },
  ];
  for (const library of ["Open MPI", "MPICH"]) {
    const open = (length: number) => median(nameOf(`${library}, unchecked`, "sum"), length);
    const checked = median(nameOf(library, "sum"), short);
    const [free, agreement] = [open(short), open(AGREEMENT_LENGTH)];
    const allowed = free === undefined || agreement === undefined
      ? undefined
      : 1.2 * (free + agreement);
    const raw = (length: number, call: string) => median(`C, ${library}, ${call}`, length);
    list.push({
      what: `${library}, checked, 2 ranks, ${count(short)}`,
      bound: `unchecked + one of ${AGREEMENT_LENGTH} + 20 % = ${
        allowed === undefined ? "?" : figure(allowed)
      } us`,
      measured: checked,
      most: allowed,
      unit: "us",
    });
    for (const [length, most] of [[short, 2], [long, 1.3]] as const) {
      for (const call of ["blocking", "non-blocking"]) {
        list.push({
          what: `${library}, unchecked, 2 ranks, ${count(length)}, against C, ${call}`,
          bound: `${most} x`,
          measured: ratio(open(length), raw(length, call)),
          most,
          unit: "x",
        });
      }
    }
    for (const length of LENGTHS) {
      list.push({
        what: `${library}, combineMoments against sum, 2 ranks, ${count(length)}`,
        bound: "2 x",
        measured: ratio(
          median(nameOf(library, "combineMoments"), length),
          median(nameOf(library, "sum"), length),
        ),
        most: 2,
        unit: "x",
      });
    }
  }
  return table([
    ["", "at most", "measured", "reached"],
    ...list.map(({ what, bound, measured, most, unit }) => [
      what,
      bound,
      measured === undefined || Number.isNaN(measured)
        ? "not measured"
        : `${figure(measured)} ${unit}`,
      measured === undefined || most === undefined ? "" : measured <= most ? "yes" : "no",
    ]),
  ]);
}

function steps({ steps = [] }: Measured): string {
  const text = paragraph(
    `A step of the demo's network on the CPU, 8 images per rank, gradients reduced in both columns: ` +
      `with batch norm over each rank's own images, and over those of all. It has ` +
      `${BLOCKS.length} batch norms, so ${
        2 * BLOCKS.length
      } more collectives. Median of 5 runs of ` +
      `100 steps, in turns.`,
  );
  const rows = table([
    ["group", "ranks", "local, ms", "synchronised, ms", "added, ms"],
    ...steps.map(({ group, ranks, local, sync }) => [
      group,
      count(ranks),
      figure(local),
      figure(sync),
      (sync - local).toFixed(3),
    ]),
  ]);
  return `${text}\n\n${rows}`;
}
