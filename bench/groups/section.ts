/** The section of bench/README.md about groups: tables, and what was to be reached, all from what was measured. */

import { BLOCKS } from "../../examples/blocks.ts";
import { count, figure, list, paragraph, section, table } from "../report.ts";
import {
  AGREEMENT_LENGTH,
  foldSubject,
  type GroupRow,
  LENGTHS,
  type Measured,
  nameOf,
} from "./measured.ts";

/** Writes the section, without a heading. */
export function groupsSection(measured: Measured): string {
  const { machine, versions, date, rows, missing = [] } = measured;
  const worlds = [...new Set(rows.map(({ ranks }) => ranks))].filter((ranks) => ranks > 1);
  return section(
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
    ...(missing.length > 0 ? ["Not measured:"] : []),
    ...list(
      missing.map(({ subject, ranks, missing: why }) => `${subject}, ${ranks} ranks: ${why}`),
    ),
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
    ...steps(measured),
  );
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

/** Bounds, and what came of each. */
function targets(rows: readonly GroupRow[]): string {
  const [, short, , long] = LENGTHS;
  const median = (subject: string, length: number, ranks = 2): number =>
    rows.find((row) => row.subject === subject && row.length === length && row.ranks === ranks)
      ?.microseconds.median ?? NaN;
  const line = (what: string, most: number, unit: "us" | "x", measured: number, by = "") => [
    what,
    `${by}${Number.isNaN(most) ? "?" : by ? figure(most) : most} ${unit}`,
    Number.isNaN(measured) ? "not measured" : `${figure(measured)} ${unit}`,
    Number.isNaN(measured + most) ? "" : measured <= most ? "yes" : "no",
  ];
  const folds = LENGTHS.map((length) =>
    median(foldSubject("combineMoments"), length, 1) / median(foldSubject("sum"), length, 1)
  );
  const blocking = median(nameOf("workers, blocking", "sum"), short);
  return table([
    ["", "at most", "measured", "reached"],
    line(`workers, blocking, 2 ranks, ${count(short)}`, 15, "us", blocking),
    line("combineMoments against sum, one fold, the worst length", 2, "x", Math.max(...folds)),
    ...["Open MPI", "MPICH"].flatMap((library) => {
      const open = (length: number) => median(nameOf(`${library}, unchecked`, "sum"), length);
      const sum = (length: number) => median(nameOf(library, "sum"), length);
      const merge = (length: number) => median(nameOf(library, "combineMoments"), length);
      const raw = (length: number, call: string) => median(`C, ${library}, ${call}`, length);
      const by = `unchecked + one of ${AGREEMENT_LENGTH} + 20 % = `;
      const allowed = 1.2 * (open(short) + open(AGREEMENT_LENGTH));
      return [
        line(`${library}, checked, 2 ranks, ${count(short)}`, allowed, "us", sum(short), by),
        ...([[short, 2], [long, 1.3]] as const).flatMap(([length, most]) =>
          ["blocking", "non-blocking"].map((call) => {
            const what = `${library}, unchecked, 2 ranks, ${count(length)}, against C, ${call}`;
            return line(what, most, "x", open(length) / raw(length, call));
          })
        ),
        ...LENGTHS.map((length) => {
          const what = `${library}, combineMoments against sum, 2 ranks, ${count(length)}`;
          return line(what, 2, "x", merge(length) / sum(length));
        }),
      ];
    }),
  ]);
}

function steps({ steps = [] }: Measured): string[] {
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
  return [text, rows];
}
