/**
 * The section of bench/README.md that a run writes: goals, then a table per storage and memory order.
 *
 * @module
 */

import { figure, paragraph, table } from "../groups/markdown.ts";
import { speedOf, titleOfCase, type Work, WORKS } from "./cases.ts";
import type { CaseTimes } from "./ours.ts";
import type { PeerTimes } from "./peers.ts";
import { TORCH_ROWS, type TorchTimes } from "./torch.ts";
import { copySpeed, timesOf, verdicts } from "./verdict.ts";

/** What stands before and after the section. */
export const MARKERS = ["<!-- gpu:begin -->", "<!-- gpu:end -->"] as const;

/** A case by everybody. */
export interface MeasuredCase {
  readonly ours: CaseTimes;
  readonly torch: TorchTimes | null;
  /** Of the plain float32 cases, by name. */
  readonly peers: Readonly<Record<string, PeerTimes>>;
}

/** Two ranks on one GPU, ms of a forward and backward. */
export interface MeasuredRanks {
  readonly shape: readonly number[];
  /** Ours: two ranks of a thread on one device, and two workers with a device each. */
  readonly thread: number;
  readonly workers: number;
  /** SyncBatchNorm over gloo; null where it was not measured. */
  readonly torch: number | null;
}

/** A run. */
export interface MeasuredGpu {
  /** Day of the run, ISO 8601. */
  readonly date: string;
  readonly adapter: string;
  /** Whether the adapter is software: its times say nothing. */
  readonly software: boolean;
  readonly versions: readonly string[];
  readonly command: string;
  readonly rounds: number;
  readonly cases: readonly MeasuredCase[];
  readonly ranks: readonly MeasuredRanks[];
  /** Who was not measured, and why. */
  readonly absent: readonly string[];
}

/**
 * Writes the section.
 *
 * @param measured the run
 * @returns Markdown as `deno fmt` leaves it
 */
export function section(measured: MeasuredGpu): string {
  const { adapter, software, versions, date, rounds, cases, absent, command } = measured;
  const clock = cases.some(({ ours }) => ours.gpu)
    ? "between two timestamps of the GPU"
    : "by the wall clock, less an empty wait";
  return [
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
    table([
      ["goal", "measured", "verdict"],
      ...verdicts(measured).map(({ goal, met, figure }) => [
        ...[goal, figure],
        met === null ? "not measured" : met ? "met" : "missed",
      ]),
    ]),
    "### Ours",
    table([
      ["batch", "copy, GB/s", ...WORKS, "error of y", "error of dx"],
      ...cases.map(lineOf),
    ]),
    ...torchTable(cases),
    ...peersTable(cases),
    ...ranksTable(measured),
    ...(absent.length === 0 ? [] : [
      absent.map((line) => paragraph(`${line}.`, "- ")).join("\n"),
    ]),
  ].join("\n\n");
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
    ...[errors.y.toExponential(1), errors.dx.toExponential(1)],
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
  if (lines.length === 0) return [];
  return [
    "### PyTorch on the same GPU, a comparison of kernels",
    "In parentheses: how many times ours.",
    table([["batch", "who", ...WORKS], ...lines]),
  ];
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
        ...[errors.y.toExponential(1), errors.dx.toExponential(1)],
      ];
    })
  );
  if (lines.length === 0) return [];
  return [
    "### jax-js and TensorFlow.js on the same adapter",
    "By the wall clock, ms per call; in parentheses: how many times ours.",
    table([
      ["batch", "who", "forward", "forward and backward", "error of y", "error of dx"],
      ...lines,
    ]),
  ];
}

function ranksTable({ ranks }: MeasuredGpu): string[] {
  if (ranks.length === 0) return [];
  return [
    "### Two ranks on one GPU, with collectives",
    paragraph(
      "Forward and backward in ms by the wall clock, half of the batch each: ours as two ranks of one thread on one " +
        "device and as two workers with a device each, `torch.nn.SyncBatchNorm` as two processes over gloo.",
    ),
    table([
      ["batch", "ours, one thread", "ours, two workers", "SyncBatchNorm over gloo"],
      ...ranks.map(({ shape, thread, workers, torch }) => [
        ...[
          `[${shape}]`,
          time(thread),
          time(workers),
          torch === null ? "not measured" : time(torch),
        ],
      ]),
    ]),
  ];
}

function time(milliseconds: number): string {
  return milliseconds < 0.1 ? milliseconds.toFixed(4) : figure(milliseconds);
}
