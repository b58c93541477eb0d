/**
 * The chart of the demo: how well each run does, and how far it is from one process.
 *
 * @module
 */

import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";
import { type Comparison, FIRST_STEPS, type Name } from "./compare.ts";
import { LARGEST_DIFFERENCE, percent } from "./report.ts";

interface Panel {
  readonly width: number;
  readonly marginRight: number;
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
const HEIGHT = 500;
const EDGE = 24;
const PANEL_TOP = 88;
const PANEL_HEIGHT = HEIGHT - PANEL_TOP - 10;
const MARGIN = { top: 34, bottom: 46, left: 58 };
const LABEL_GAP = 17;
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
  const { replicas, batch, results } = comparison;
  const accuracy = accuracyPanel(comparison);
  const distance = distancePanel(comparison);
  const reach = replicas === 1
    ? "one replica is one process, whatever its batch norm"
    : results.local.exams.length > 0
    ? `with batch norm left to each replica's own ${batch} they do not`
    : "batch norm left to each replica's own image would be impossible";
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" ` +
    `viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="${FONT}" role="img" aria-label="Curves of the syncbn demo">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(
      EDGE,
      34,
      20,
      600,
      INK,
      `${count(replicas)} with syncbn ${
        replicas === 1 ? "learns" : "learn"
      } what one process learns`,
    ),
    text(
      EDGE,
      58,
      13.5,
      400,
      "#555",
      `Handwritten digits, ${batch} ${
        batch === 1 ? "image" : "images"
      } per replica and step. With syncbn the replicas follow one ` +
        `process that has all ${replicas * batch}; ${reach}.`,
    ),
    text(EDGE, PANEL_TOP + 12, 13.5, 600, INK, "Accuracy on 360 images it has not seen, %"),
    nested(accuracy, 0, "accuracy"),
    text(
      LEFT_WIDTH + EDGE,
      PANEL_TOP + 12,
      13.5,
      600,
      INK,
      "Largest difference of a parameter from one process (log scale)",
    ),
    nested(distance, LEFT_WIDTH, "distance"),
    "</svg>\n",
  ].join("\n");
}

function accuracyPanel(comparison: Comparison): Panel {
  const { steps, planned, epochs, replicas, batch, results } = comparison;
  const seen = epochs * steps / planned;
  const curves = [
    { ...results.one, label: `one process, batch ${replicas * batch}` },
    { ...results.sync, label: `syncbn, ${count(replicas)}` },
    { ...results.none, label: "no norm" },
    { ...results.local, label: "local batch norm" },
  ].filter(({ exams }) => exams.length > 0).map(({ name, label, exams }): Curve => ({
    name,
    label: `${percent(exams[exams.length - 1].accuracy)} %  ${label}`,
    points: exams.map(({ step, accuracy }) => [seen * step / steps, 100 * accuracy]),
  }));
  const lowest = Math.min(...curves.flatMap(({ points }) => points.map(([, y]) => y)));
  return {
    width: LEFT_WIDTH,
    marginRight: 192,
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
    marginRight: 130,
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
  { width, marginRight, x, y, curves, marks }: Panel,
  left: number,
  name: string,
): string {
  const document = new DOMParser().parseFromString("<html></html>", "text/html");
  const inner = PANEL_HEIGHT - MARGIN.top - MARGIN.bottom;
  const ends = curves.map(({ points }) => points[points.length - 1]);
  const heights = ends.map(([, value]) => position(value, y) * inner);
  const spread = keepApart(heights);
  const plot = Plot.plot({
    document,
    className: name,
    width,
    height: PANEL_HEIGHT,
    marginTop: MARGIN.top,
    marginBottom: MARGIN.bottom,
    marginLeft: MARGIN.left,
    marginRight,
    style: { fontFamily: FONT, fontSize: "13px", color: INK, overflow: "visible" },
    x: { ...x, labelArrow: "none", labelAnchor: "center" },
    y: { ...y, label: null, grid: true, tickSize: 0 },
    marks: [
      ...marks,
      ...curves.map((curve) => Plot.line(curve.points, { ...STYLES[curve.name] })),
      ...curves.map((curve, i) =>
        Plot.text([ends[i]], {
          text: () => curve.label,
          textAnchor: "start",
          dx: 9,
          dy: heights[i] - spread[i],
          fill: TEXT_COLOURS[curve.name],
          fontWeight: 600,
        })
      ),
    ],
  });
  plot.setAttribute("x", String(left));
  plot.setAttribute("y", String(PANEL_TOP));
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

function count(replicas: number): string {
  return replicas === 1 ? "1 replica" : `${replicas} replicas`;
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
