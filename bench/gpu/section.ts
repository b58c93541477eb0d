/** The section of bench/README.md that a run writes, and its chart. */

import { chart, dots, heightOf } from "../chart.ts";
import { goalSection } from "../goals.ts";
import { distance, figure, list, paragraph, section, table, tabled, time } from "../report.ts";
import { speedOf, titleOfCase, type Work, WORKS } from "./cases.ts";
import { copySpeed, type MeasuredCase, type MeasuredGpu, timesOf } from "./measured.ts";
import { TORCH_ROWS } from "./torch.ts";
import { verdicts } from "./verdict.ts";

const COLOURS: Readonly<Record<Work, string>> = {
  inference: "#555555",
  forward: "#2e6fb7",
  backward: "#d1495b",
};

export function gpuSection(measured: MeasuredGpu): string {
  const { adapter, software, versions, date, rounds, cases, absent, command } = measured;
  const clock = cases.some(({ ours }) => ours.gpu)
    ? "between two timestamps of the GPU"
    : "by the wall clock, less an empty wait";
  return section(
    ...(software
      ? [paragraph(
        "**Not measured on a GPU yet.** The rows below are a software adapter's: they show that everything runs and is " +
          "right; their times mean nothing. What is left to run where there is a GPU:",
      )]
      : []),
    // In a block of its own: the formatter breaks a line within a command that stands in a paragraph.
    ["```sh", command, "```"].join("\n"),
    paragraph(
      `Measured on ${adapter}; ${
        versions.join(", ")
      }; ${date}. Median of ${rounds} rounds, ms per call ` +
        `${clock}. In parentheses: effective GB/s, the tensors that a work reads and writes if nothing stays in cache ` +
        "divided by its time (forward 3, backward 5, inference 2; fused 4, 6 and 3), and the share of the faster plain " +
        "copy of as many bytes. Errors are the greatest distances from float64, at mean 1e3 (float16: 1).",
    ),
    "### Goals on a GPU",
    ...goalSection(verdicts(measured)),
    "### Ours",
    table([
      ["batch", "copy, GB/s", ...WORKS, "error of y", "error of dx"],
      ...cases.map(lineOf),
    ]),
    ...torchTable(cases),
    ...peersTable(cases),
    ...ranksTable(measured),
    ...list(absent.map((line) => `${line}.`)),
  );
}

function lineOf(one: MeasuredCase): string[] {
  const times = timesOf(one);
  const { case: what, errors } = one.ours;
  const copy = copySpeed(one);
  const cell = (work: Work) => {
    const speed = speedOf(what, work, times[work]);
    return `${time(times[work])} (${figure(speed)}, ${(100 * speed / copy).toFixed(0)} %)`;
  };
  return [
    ...[titleOfCase(what), figure(copy)],
    ...WORKS.map(cell),
    ...[distance(errors.y), distance(errors.dx)],
  ];
}

/** PyTorch's times, and how many times ours they are. */
function torchTable(cases: readonly MeasuredCase[]): string[] {
  const lines = cases.flatMap((one) => {
    const { torch } = one;
    if (!torch) return [];
    return TORCH_ROWS.filter((row) => torch[row]).map((row) => [
      ...[titleOfCase(one.ours.case), row],
      ...WORKS.map((work) => {
        const theirs = torch[row][work];
        return theirs === undefined
          ? ""
          : `${time(theirs)} (${(theirs / timesOf(one)[work]).toFixed(2)})`;
      }),
    ]);
  });
  const text = "In parentheses: how many times ours.";
  const heading = "PyTorch on the same GPU, a comparison of kernels";
  return tabled([heading, text], ["batch", "who", ...WORKS], lines);
}

/** Times of jax-js and tfjs, and how many times ours they are: all by the wall clock, since they have no other here. */
function peersTable(cases: readonly MeasuredCase[]): string[] {
  const lines = cases.flatMap(({ ours, peers }) =>
    Object.entries(peers).map(([name, { forward, both, errors }]) => {
      const { wall } = ours;
      const times = (theirs: number, mine: number) =>
        `${time(theirs)} (${(theirs / mine).toFixed(1)})`;
      return [
        ...[titleOfCase(ours.case), name],
        ...[times(forward, wall.forward), times(both, wall.forward + wall.backward)],
        ...[distance(errors.y), distance(errors.dx)],
      ];
    })
  );
  const text = "By the wall clock, ms per call; in parentheses: how many times ours.";
  const head = ["batch", "who", "forward", "forward and backward", "error of y", "error of dx"];
  return tabled(["jax-js and TensorFlow.js on the same adapter", text], head, lines);
}

function ranksTable({ ranks }: MeasuredGpu): string[] {
  const text =
    "Forward and backward in ms by the wall clock, half of the batch each: ours as two ranks of one thread on one " +
    "device and as two workers with a device each, `torch.nn.SyncBatchNorm` as two processes over gloo.";
  const lines = ranks.map(({ shape, thread, workers, torch }) => {
    const theirs = torch === null ? "not measured" : time(torch);
    return [`[${shape}]`, time(thread), time(workers), theirs];
  });
  const head = ["batch", "ours, one thread", "ours, two workers", "SyncBatchNorm over gloo"];
  return tabled(["Two ranks on one GPU, with collectives", text], head, lines);
}

/** The chart: the share of a plain copy's bandwidth of the float32 cases, plain and fused. */
export function gpuChart({ cases: all, software, adapter }: MeasuredGpu): string {
  const cases = all.filter(({ ours }) => ours.case.dtype === "float32");
  const rows = cases.map(({ ours }) => titleOfCase(ours.case));
  const points = cases.flatMap((one, i) =>
    WORKS.map((work) => ({
      row: rows[i],
      value: 100 * speedOf(one.ours.case, work, timesOf(one)[work]) / copySpeed(one),
      colour: COLOURS[work],
    }))
  );
  return chart({
    title: `Batch norm on ${adapter}`,
    subtitle: software
      ? "A software adapter: not measured on a GPU yet."
      : "Share of a plain copy's bandwidth.",
    legend: WORKS.map((label) => ({ label, colour: COLOURS[label] })),
    ...{ width: 900, height: heightOf(rows) },
    panels: [{ title: "", options: dots(points, { rows, label: "% of the copy", line: 100 }) }],
  });
}
