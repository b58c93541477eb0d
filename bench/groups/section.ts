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

export function groupsSection(measured: Measured): string {
  const { machine, versions, date, rows, missing = [] } = measured;
  const worlds = [...new Set(rows.map(({ ranks }) => ranks))].filter((ranks) => ranks > 1);
  return section(
    paragraph(`Measured on ${machine}; ${versions.join(", ")}; ${date}.`),
    ...worlds.flatMap((ranks) => [`### ${ranks} ranks`, reductions(rows, ranks)]),
    ...(missing.length > 0 ? ["Not measured:"] : []),
    ...list(
      missing.map(({ subject, ranks, missing: why }) => `${subject}, ${ranks} ranks: ${why}`),
    ),
    "### What was to be reached",
    targets(rows),
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
  const blocking = median(nameOf("workers, in place", "sum"), short);
  return table([
    ["", "at most", "measured", "reached"],
    ...["Open MPI", "MPICH"].map((library) => {
      const raw = median(`C, ${library}, blocking`, short);
      const what = `workers, in place, 2 ranks, ${count(short)}, against C, ${library}, blocking`;
      return line(what, 1.5, "x", blocking / raw);
    }),
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
