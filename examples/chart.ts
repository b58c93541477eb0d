/**
 * The chart of the demo: how well each run does, and how far it is from one process.
 *
 * @module
 */

import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";
import { type Comparison, FIRST_STEPS, type Name } from "./compare.ts";
import { LARGEST_DIFFERENCE, percent } from "./report.ts";
import { wrap } from "./wrap.ts";

interface Panel {
  readonly width: number;
  readonly x: Axis;
  readonly y: Axis;
  readonly curves: readonly Curve[];
  readonly marks: readonly Plot.Markish[];
}

interface Axis extends Plot.ScaleOptions {
  readonly domain: readonly [number, number];
}

interface Curve {
  readonly name: Name;
  readonly label: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

const WIDTH = 1120;
const LEFT_WIDTH = 620;
const EDGE = 24;
const PANEL_HEIGHT = 402;
const MARGIN = { top: 34, bottom: 46, left: 58 };
const LABEL_GAP = 17;
const LABEL_LEFT = 9;
const LABEL_SIZE = 13;
const SIZE = 13.5;
const LINE = 18;
/** Widths of a character of English text in shares of its size, in DejaVu Sans, the widest font that is common. */
const REGULAR_WIDTH = 0.61;
const BOLD_WIDTH = 0.68;
const INK = "#222";
const FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif";

/** Colours that stay apart for colour-blind eyes (Okabe and Ito 2008); syncbn is dashed on one process's broad line. */
const STYLES: Readonly<Record<Name, Plot.LineOptions>> = {
  one: { stroke: "#9ecdf0", strokeWidth: 8, strokeLinecap: "round" },
  control: { stroke: "#cfcfcf", strokeWidth: 8, strokeLinecap: "round" },
  sync: { stroke: "#005a9c", strokeWidth: 2.25, strokeDasharray: "7,4" },
  local: { stroke: "#d55e00", strokeWidth: 2.25 },
  none: { stroke: "#7a7a7a", strokeWidth: 2.25 },
};
const TEXT_COLOURS: Readonly<Record<Name, string>> = {
  one: "#4292c6",
  control: "#6b6b6b",
  sync: "#005a9c",
  local: "#b84f00",
  none: "#5c5c5c",
};

/**
 * Draws the comparison.
 *
 * @param comparison all runs
 * @returns an SVG document, readable on light and dark pages
 */
export function chart(comparison: Comparison): string {
  const { replicas } = comparison;
  const learn = replicas === 1
    ? "1 replica with syncbn learns"
    : `${replicas} replicas with syncbn learn`;
  const subtitle = sentences(comparison)
    .flatMap((sentence) => wrap(sentence, Math.floor((WIDTH - 2 * EDGE) / (SIZE * REGULAR_WIDTH))));
  const top = 58 + LINE * subtitle.length;
  const height = top + PANEL_HEIGHT + 10;
  const heading = { y: top + 12, size: SIZE, weight: 600, colour: INK };
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" ` +
    `viewBox="0 0 ${WIDTH} ${height}" font-family="${FONT}" role="img" aria-label="Curves of the syncbn demo">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(`${learn} what one process learns`, {
      ...{ x: EDGE, y: 34, size: 20, weight: 600, colour: INK },
    }),
    ...subtitle.map((line, i) =>
      text(line, { x: EDGE, y: 58 + LINE * i, size: SIZE, weight: 400, colour: "#555" })
    ),
    text("Accuracy on 360 images it has not seen, %", { ...heading, x: EDGE }),
    nested(accuracyPanel(comparison), [0, top], "accuracy"),
    text("Largest difference of a parameter from one process", {
      ...heading,
      x: LEFT_WIDTH + EDGE,
    }),
    nested(distancePanel(comparison), [LEFT_WIDTH, top], "distance"),
    "</svg>\n",
  ].join("\n");
}

/** What is shown, a line each or more. */
function sentences({ replicas, batch, results }: Comparison): readonly string[] {
  const images = batch === 1 ? "image" : "images";
  const reach = replicas === 1
    ? "one replica is one process, whatever its batch norm"
    : results.local.exams.length > 0
    ? `with batch norm left to each replica's own ${batch} they do not`
    : "batch norm left to each replica's own image would be impossible";
  return [
    `Handwritten digits, ${batch} ${images} per replica and step.`,
    `With syncbn the replicas follow one process that has all ${replicas * batch}; ${reach}.`,
  ];
}

function accuracyPanel(comparison: Comparison): Panel {
  const { steps, planned, epochs, results } = comparison;
  const seen = epochs * steps / planned;
  const curves = [
    { ...results.one, label: "one process" },
    { ...results.sync, label: "syncbn" },
    { ...results.none, label: "no norm" },
    { ...results.local, label: "local batch norm" },
  ].filter(({ exams }) => exams.length > 0).map(({ name, label, exams }): Curve => ({
    name,
    label: `${percent(exams[exams.length - 1].accuracy)} % ${label}`,
    points: exams.map(({ step, accuracy }) => [seen * step / steps, 100 * accuracy]),
  }));
  const lowest = Math.min(...curves.flatMap(({ points }) => points.map(([, y]) => y)));
  return {
    width: LEFT_WIDTH,
    x: {
      domain: [0, seen],
      label: "epoch",
      // Whole epochs only, as far as there are any.
      ...(seen < 2 ? { ticks: 4 } : { ticks: Math.min(Math.floor(seen), 8), tickFormat: "d" }),
    },
    y: {
      domain: [10 * Math.floor(lowest / 10), 100],
      ticks: 8,
    },
    curves,
    marks: [],
  };
}

function distancePanel({ steps, results }: Comparison): Panel {
  const floor = 1e-9;
  const curves = [
    { ...results.control, label: "rows reversed" },
    { ...results.sync, label: "syncbn" },
    { ...results.local, label: "local batch norm" },
  ].filter(({ distances }) => distances.length > 0).map(({ name, label, distances }): Curve => ({
    name,
    label,
    points: distances.map(({ step, largest }) => [step, Math.max(largest, floor)]),
  }));
  const limit = [[1, LARGEST_DIFFERENCE], [Math.min(FIRST_STEPS, steps), LARGEST_DIFFERENCE]];
  return {
    width: WIDTH - LEFT_WIDTH,
    x: {
      type: "log",
      domain: [1, Math.max(steps, 2)],
      label: "step",
      ticks: 4,
      tickFormat: ",d",
    },
    y: {
      type: "log",
      domain: [floor, 100],
      ticks: 6,
      tickFormat: powerOfTen,
    },
    curves,
    marks: [
      Plot.line(limit, { stroke: "#c03030", strokeWidth: 1.25, strokeDasharray: "2,3" }),
      Plot.text([limit[0]], {
        text: () => `allowed in the first ${FIRST_STEPS} steps`,
        fill: "#c03030",
        textAnchor: "start",
        dy: -9,
      }),
    ],
  };
}

/** Draws a panel as an SVG element within the chart. */
function nested(
  { width, x, y, curves, marks }: Panel,
  [left, top]: readonly [left: number, top: number],
  name: string,
): string {
  // Has what Plot needs of a browser's Document, and not its type.
  const document = new DOMParser().parseFromString("<html></html>", "text/html") as never;
  const inner = PANEL_HEIGHT - MARGIN.top - MARGIN.bottom;
  const ends = curves.map(({ points }) => points[points.length - 1]);
  const heights = ends.map(([, value]) => position(value, y) * inner);
  const spread = keepApart(heights);
  const longest = Math.max(...curves.map(({ label }) => label.length));
  const plot = Plot.plot({
    document,
    className: name,
    width,
    height: PANEL_HEIGHT,
    marginTop: MARGIN.top,
    marginBottom: MARGIN.bottom,
    marginLeft: MARGIN.left,
    marginRight: LABEL_LEFT + LABEL_SIZE * BOLD_WIDTH * longest,
    style: { fontFamily: FONT, fontSize: `${LABEL_SIZE}px`, color: INK, overflow: "visible" },
    x: { ...x, labelArrow: "none", labelAnchor: "center" },
    y: { ...y, label: null, grid: true, tickSize: 0 },
    marks: [
      ...marks,
      ...curves.map((curve) => Plot.line(curve.points, { ...STYLES[curve.name] })),
      ...curves.map((curve, i) =>
        Plot.text([ends[i]], {
          text: () => curve.label,
          textAnchor: "start",
          dx: LABEL_LEFT,
          dy: heights[i] - spread[i],
          fill: TEXT_COLOURS[curve.name],
          fontWeight: 600,
        })
      ),
    ],
  });
  plot.setAttribute("x", String(left));
  plot.setAttribute("y", String(top));
  return plot.outerHTML;
}

/** Writes a power of ten as people do; the axis has no other ticks. */
function powerOfTen(value: number): string {
  const digits = [...String(Math.round(Math.log10(value)))];
  return `10${digits.map((digit) => digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]).join("")}`;
}

/** Where a value lies on an axis, from 0 to 1. */
function position(value: number, { type, domain: [low, high] }: Axis): number {
  const scale = type === "log" ? Math.log : (number: number) => number;
  return (scale(value) - scale(low)) / (scale(high) - scale(low));
}

/** Moves heights apart until labels at them do not touch, keeping their order and their middle. */
function keepApart(heights: readonly number[]): readonly number[] {
  const order = heights.map((_, i) => i).sort((a, b) => heights[a] - heights[b] || b - a);
  const moved = [...heights];
  for (let round = 0; round < 100; round++) {
    for (let i = 1; i < order.length; i++) {
      const [below, above] = [order[i - 1], order[i]];
      const lack = LABEL_GAP - (moved[above] - moved[below]);
      if (lack <= 0) continue;
      moved[below] -= lack / 2;
      moved[above] += lack / 2;
    }
  }
  return moved;
}

function text(
  content: string,
  { x, y, size, weight, colour }: {
    readonly x: number;
    readonly y: number;
    readonly size: number;
    readonly weight: number;
    readonly colour: string;
  },
): string {
  return `<text x="${x}" y="${y}" font-size="${size}" font-weight="${weight}" fill="${colour}">${content}</text>`;
}
