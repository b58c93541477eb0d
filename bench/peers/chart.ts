/**
 * The chart of a run: how many times as long as ours everybody takes, per batch, at equal threads.
 *
 * @module
 */

import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";
import { titleOf } from "../batches.ts";
import { SMALLEST } from "./cases.ts";
import { LIMIT } from "./limit.ts";
import { type Measured, OURS, rowOf } from "./measured.ts";
import { ONNX } from "./onnxruntime.ts";
import { TORCH } from "./torch.ts";

/** Who is drawn, and how; the fastest row of a library counts. */
const DRAWN = [
  { prefix: LIMIT, label: "the same algorithm in C", colour: "#555555", exact: true },
  { prefix: TORCH, label: "PyTorch", colour: "#d1495b", exact: true },
  { prefix: ONNX, label: "onnxruntime-node", colour: "#2e6fb7", exact: false },
  { prefix: "jax-js", label: "jax-js wasm", colour: "#2f8f5b", exact: false },
  { prefix: "tfjs", label: "tfjs wasm", colour: "#b8860b", exact: false },
] as const;

const PANELS = [
  { work: "forward", title: "Forward" },
  { work: "both", title: "Forward and backward" },
] as const;

const THREADS = [1, 2] as const;
const WIDTH = 1120;
const TOP = 112;
const ROW = 30;
const EDGE = 24;
const MARGIN = { top: 30, right: 24, bottom: 40 };
const LABELS = 215;
const INK = "#222222";
const FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif";

/** A dot. */
interface Point {
  readonly batch: string;
  readonly ratio: number;
  readonly colour: string;
  readonly threads: number;
}

/**
 * Draws both panels, with a logarithmic axis.
 *
 * @param measured the run
 * @returns an SVG document, readable on light and dark pages
 */
export function chart(measured: Measured): string {
  const batches = measured.cases
    .filter(({ shape }) => titleOf(shape) !== titleOf(SMALLEST))
    .map(({ shape }) => titleOf(shape));
  const height = MARGIN.top + MARGIN.bottom + ROW * batches.length;
  const title = "Training batch norm on the CPU: time, as a multiple of syncbn's";
  const panels = PANELS.map(({ work }) => pointsOf(measured, work));
  const ratios = panels.flat().map(({ ratio }) => ratio);
  const domain: [number, number] = [
    Math.min(0.5, ...ratios) * 0.9,
    Math.max(2, ...ratios) * 1.1,
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${TOP + height + 12}" ` +
    `viewBox="0 0 ${WIDTH} ${
      TOP + height + 12
    }" font-family="${FONT}" role="img" aria-label="${title}">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(EDGE, 34, 20, 600, INK, title),
    text(
      EDGE,
      58,
      13.5,
      400,
      "#555555",
      "Equal numbers of threads: filled with one, hollow with two. Right of the line, syncbn is faster.",
    ),
    ...legend(),
    ...PANELS.flatMap(({ title }, i) => {
      const left = i * WIDTH / 2;
      return [
        text(left + EDGE, TOP + 8, 13.5, 600, INK, title),
        draw(panels[i], { batches, left, height, domain, index: i }),
      ];
    }),
    "</svg>\n",
  ].join("\n");
}

/** The dots of one panel; what was not measured has none. */
function pointsOf(measured: Measured, work: "forward" | "both"): Point[] {
  return measured.cases.filter(({ shape }) => titleOf(shape) !== titleOf(SMALLEST)).flatMap((one) =>
    THREADS.flatMap((threads) => {
      const ours = rowOf(one, { name: OURS, threads }, work);
      if (!ours) return [];
      return DRAWN.flatMap(({ prefix, colour, exact }): Point[] => {
        const times = one.rows
          .filter(({ name }) => exact ? name === prefix : name.startsWith(prefix))
          .filter((row) => row.threads === threads && row.work === work)
          .map(({ median }) => median);
        if (times.length === 0) return [];
        const ratio = Math.min(...times) / ours.median;
        return [{ batch: titleOf(one.shape), ratio, colour, threads }];
      });
    })
  );
}

function legend(): string[] {
  let x = EDGE;
  return DRAWN.flatMap(({ label, colour }) => {
    const at = x;
    x += 42 + 8 * label.length;
    return [
      `<circle cx="${at + 5}" cy="78" r="5" fill="${colour}"/>`,
      text(at + 16, 82.5, 13, 600, colour, label),
    ];
  });
}

interface Frame {
  readonly batches: readonly string[];
  readonly left: number;
  readonly height: number;
  readonly domain: readonly [number, number];
  readonly index: number;
}

function draw(points: readonly Point[], { batches, left, height, domain, index }: Frame): string {
  const document = new DOMParser().parseFromString("<html></html>", "text/html");
  const plot = Plot.plot({
    document,
    className: `peers-${index}`,
    width: WIDTH / 2,
    height,
    marginTop: MARGIN.top,
    marginRight: MARGIN.right,
    marginBottom: MARGIN.bottom,
    marginLeft: LABELS,
    style: { fontFamily: FONT, fontSize: "12.5px", color: INK, overflow: "visible" },
    x: {
      type: "log",
      domain: [...domain],
      label: "times syncbn's time",
      labelArrow: "none",
      labelAnchor: "center",
      grid: true,
      ticks: 6,
      tickFormat: (value: number) => String(value),
    },
    y: { type: "band", domain: [...batches], label: null, tickSize: 0 },
    marks: [
      Plot.ruleX([1], { stroke: INK, strokeWidth: 1.5 }),
      Plot.dot(points, {
        x: "ratio",
        y: "batch",
        r: 4.5,
        stroke: "colour",
        strokeWidth: 1.75,
        fill: (point: Point) => point.threads === 1 ? point.colour : "white",
      }),
    ],
  });
  plot.setAttribute("x", String(left));
  plot.setAttribute("y", String(TOP));
  return plot.outerHTML;
}

function text(
  x: number,
  y: number,
  size: number,
  weight: number,
  colour: string,
  content: string,
): string {
  return `<text x="${x}" y="${y}" font-size="${size}" font-weight="${weight}" fill="${colour}">${content}</text>`;
}
