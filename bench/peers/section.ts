/** The section of bench/README.md that a run writes, its chart, and a line for the end of the log. */

import { elementsOf, titleOf } from "../batches.ts";
import { type Bar, bars, chart, type Dot, dots, heightOf } from "../chart.ts";
import { goalSection } from "../goals.ts";
import { distance, figure, list, paragraph, section, table, time } from "../report.ts";
import { SMALLEST } from "./cases.ts";
import { COPY, LIMIT } from "./limit.ts";
import { checkedOf, type Measured, OURS, rowOf } from "./measured.ts";
import { ONNX } from "./onnxruntime.ts";
import type { Measurement } from "./rounds.ts";
import { type Absent, PASSES, type Whose, type Work } from "./subject.ts";
import { TORCH } from "./torch.ts";
import { verdicts } from "./verdict.ts";

const HEAD = [
  ...["who", "threads"],
  ...["forward, ms", "GB/s", "times ours"],
  ...["forward and backward, ms", "GB/s", "times ours"],
  ...["error of y", "error of dx"],
];

export function peersSection(measured: Measured): string {
  const { machine, versions, rounds, date } = measured;
  return section(
    paragraph(
      `Measured on ${machine}; ${versions.join(", ")}; ${date}. Median of up to ` +
        `${rounds} rounds in which everybody takes a turn (fastest round), in ms per call. GB/s is effective: 3 passes ` +
        `over the tensor forward, 8 with backward. "Times ours" is the time divided by ours with as many threads. ` +
        `Timed on x of mean 0.5 and standard deviation 1; errors are the greatest distances from float64 at mean 1e3.`,
    ),
    "### Goals",
    ...goalSection(verdicts(measured)),
    ...measured.cases.flatMap((one) => [
      `### ${titleOf(one.shape)}`,
      ...copies(one),
      caseTable(one),
      ...absences(one.absent),
    ]),
    ...(measured.absent.length > 0 ? ["### Not measured", ...absences(measured.absent)] : []),
  );
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
  return [
    ...[whose.name, String(whose.threads)],
    ...cells("forward"),
    ...cells("both"),
    ...[distance(errors?.y), distance(errors?.dx)],
  ];
}

function speed({ shape }: Measurement, work: Work, milliseconds: number): string {
  const bytes = PASSES[work] * elementsOf(shape) * Float32Array.BYTES_PER_ELEMENT;
  return figure(bytes / milliseconds / 1e6);
}

function absences(absent: readonly Absent[]): string[] {
  return list(
    absent.map(({ name, threads, missing }) =>
      `${name}${threads > 0 ? `, threads: ${threads}` : ""} is not measured: ${missing}.`
    ),
  );
}

/** Who is drawn, and how; the fastest row of a library counts. */
const DRAWN = [
  { prefix: LIMIT, label: "the same algorithm in C", colour: "#555555", exact: true },
  { prefix: TORCH, label: "PyTorch", colour: "#d1495b", exact: true },
  { prefix: ONNX, label: "onnxruntime-node", colour: "#2e6fb7", exact: false },
  { prefix: "jax-js", label: "jax-js wasm", colour: "#2f8f5b", exact: false },
  { prefix: "tfjs", label: "tfjs wasm", colour: "#b8860b", exact: false },
] as const;

/** The fastest row of a peer. */
function fastest(
  { rows }: Measurement,
  { prefix, exact }: { readonly prefix: string; readonly exact: boolean },
  threads: number,
  work: Work,
): number | null {
  const times = rows
    .filter(({ name }) => exact ? name === prefix : name.startsWith(prefix))
    .filter((row) => row.threads === threads && row.work === work)
    .map(({ median }) => median);
  return times.length === 0 ? null : Math.min(...times);
}

/** Shapes of the README's chart: layers of a ResNet-50 that lie in memory, and in a cache. */
const SHOWN = ["[32,64,56,56]", "[32,256,14,14]"];

/** The README's chart: forward and backward with one thread, against who else there is, on two shapes. */
export function timesChart({ cases, machine, date }: Measured): string {
  const shown = cases.filter(({ shape }) => SHOWN.includes(titleOf(shape)));
  const who = [
    { prefix: OURS, label: OURS, colour: "#7b2d8b", exact: true },
    ...DRAWN.filter(({ prefix }) => prefix !== LIMIT),
  ];
  const barsOf = (one: Measurement) => {
    const ours = fastest(one, who[0], 1, "both")!;
    return who.flatMap((peer): Bar[] => {
      const value = fastest(one, peer, 1, "both");
      if (value === null) return [];
      const ratio = (value / ours).toFixed(1);
      const label = `${time(value)} ms${peer.label === OURS ? "" : ` (${ratio})`}`;
      return [{ row: peer.label, value, colour: peer.colour, label }];
    });
  };
  return chart({
    title: "Batch norm in training: forward and backward on one thread",
    subtitle: `${machine}, ${date}. In parentheses: how many times syncbn's time.`,
    height: heightOf(who.map(({ label }) => label)),
    panels: shown.map((one) => ({
      title: `A float32 batch of ${titleOf(one.shape)}`,
      options: bars(barsOf(one), "ms"),
    })),
  });
}

/** The chart: how many times as long as ours everybody takes, per batch, at equal threads. */
export function peersChart({ cases: all }: Measured): string {
  const cases = all.filter(({ shape }) => titleOf(shape) !== titleOf(SMALLEST));
  const rows = cases.map(({ shape }) => titleOf(shape));
  const pointsOf = (work: "forward" | "both") =>
    cases.flatMap((one, i) =>
      [1, 2].flatMap((threads) => {
        const ours = rowOf(one, { name: OURS, threads }, work);
        if (!ours) return [];
        return DRAWN.flatMap((peer): Dot[] => {
          const time = fastest(one, peer, threads, work);
          if (time === null) return [];
          const value = time / ours.median;
          return [{ row: rows[i], value, colour: peer.colour, hollow: threads === 2 }];
        });
      })
    );
  const panel = (title: string, work: "forward" | "both") => ({
    title,
    options: dots(pointsOf(work), { rows, label: "times syncbn's time", line: 1, log: true }),
  });
  return chart({
    title: "Training batch norm on the CPU: time, as a multiple of syncbn's",
    subtitle:
      "Equal numbers of threads: filled with one, hollow with two. Right of the line, syncbn is faster.",
    legend: DRAWN,
    height: heightOf(rows),
    panels: [panel("Forward", "forward"), panel("Forward and backward", "both")],
  });
}
