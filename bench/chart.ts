/** The charts: dots per batch, and curves with logarithmic axes. SVG documents, readable on light and dark pages. */

import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";

export interface Chart {
  readonly title: string;
  readonly subtitle: string;
  readonly legend?: readonly { readonly label: string; readonly colour: string }[];
  readonly height: number;
  readonly width?: number;
  readonly panels: readonly { readonly title: string; readonly options: Plot.PlotOptions }[];
}

const [EDGE, TITLES, LEGEND] = [24, 88, 24];
const INK = "#222222";
const FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif";

/** Draws it; `height` is that of the panels. */
export function chart(
  { title, subtitle, legend = [], height, width = 1120, panels }: Chart,
): string {
  const top = TITLES + (legend.length > 0 ? LEGEND : 0);
  const text = (x: number, y: number, size: number, weight: number, fill: string, said: string) =>
    `<text x="${x}" y="${y}" font-size="${size}" font-weight="${weight}" fill="${fill}">${said}</text>`;
  const [total, each] = [top + height + 12, width / panels.length];
  let at = EDGE;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}" ` +
    `viewBox="0 0 ${width} ${total}" font-family="${FONT}" role="img" aria-label="${title}">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(EDGE, 34, 20, 600, INK, title),
    text(EDGE, 58, 13.5, 400, "#555555", subtitle),
    ...legend.flatMap(({ label, colour }) => {
      const x = at;
      at += 42 + 8 * label.length;
      return [
        `<circle cx="${x + 5}" cy="78" r="5" fill="${colour}"/>`,
        text(x + 16, 82.5, 13, 600, colour, label),
      ];
    }),
    ...panels.flatMap(({ title, options }, i) => {
      // Has what Plot needs of a browser's Document, and not its type.
      const document = new DOMParser().parseFromString("<html></html>", "text/html") as never;
      const style = { fontFamily: FONT, fontSize: "12.5px", color: INK, overflow: "visible" };
      const plot = Plot.plot({
        ...{ document, className: `panel-${i}`, width: each, height, style },
        ...options,
      });
      plot.setAttribute("x", String(i * each));
      plot.setAttribute("y", String(top));
      return [text(i * each + EDGE, top + 10, 13.5, 600, INK, title), plot.outerHTML];
    }),
    "</svg>\n",
  ].join("\n");
}

export interface Dot {
  readonly row: string;
  readonly value: number;
  readonly colour: string;
  readonly hollow?: boolean;
}

const ROW = 30;

export function heightOf(rows: readonly string[]): number {
  return 70 + ROW * rows.length;
}

/** Dots in rows, with a line where they are compared. */
export function dots(
  points: readonly Dot[],
  { rows, label, line, log = false }: {
    readonly rows: readonly string[];
    readonly label: string;
    readonly line: number;
    readonly log?: boolean;
  },
): Plot.PlotOptions {
  const values = points.map(({ value }) => value);
  const longest = Math.max(1, ...rows.map(({ length }) => length));
  const domain = log
    ? [Math.min(line / 2, ...values) * 0.9, Math.max(2 * line, ...values) * 1.1]
    : [0, Math.max(1.1 * line, ...values)];
  return {
    ...{ marginTop: 30, marginRight: 24, marginBottom: 40, marginLeft: 8 + 7.5 * longest },
    x: {
      ...{ type: log ? "log" : "linear", domain, label, grid: true, ticks: 6 },
      ...{ labelArrow: "none", labelAnchor: "center", tickFormat: String },
    },
    y: { type: "band", domain: [...rows], label: null, tickSize: 0 },
    marks: [
      Plot.ruleX([line], { stroke: INK, strokeWidth: 1.5 }),
      Plot.dot(points, {
        ...{ x: "value", y: "row", r: 4.5, stroke: "colour", strokeWidth: 1.75 },
        fill: ({ hollow, colour }: Dot) => hollow ? "white" : colour,
      }),
    ],
  };
}

/** A bar of {@linkcode bars}. */
export interface Bar {
  readonly row: string;
  readonly value: number;
  readonly colour: string;
  /** Stands behind the bar. */
  readonly label: string;
}

/** Bars from 0 on, with a label behind each. */
export function bars(all: readonly Bar[], label: string): Plot.PlotOptions {
  const longest = Math.max(...all.map(({ row }) => row.length));
  return {
    ...{ marginTop: 30, marginRight: 110, marginBottom: 40, marginLeft: 8 + 7.5 * longest },
    x: { label, grid: true, ticks: 5, labelArrow: "none", labelAnchor: "center" },
    y: { type: "band", domain: all.map(({ row }) => row), label: null, tickSize: 0, padding: 0.3 },
    marks: [
      Plot.barX(all, { x: "value", y: "row", fill: "colour" }),
      Plot.text(all, {
        ...{ x: "value", y: "row", text: "label", textAnchor: "start", dx: 6, fontWeight: 600 },
      }),
    ],
  };
}

/** A curve of {@linkcode curves}; its values must be positive. */
export interface Curve {
  readonly label: string;
  readonly colour: string;
  readonly dashed?: boolean;
  readonly points: readonly (readonly [x: number, value: number])[];
}

const LABEL_GAP = 17;

/** Curves with a label at the end of each, both axes logarithmic; the panel is as high as it says. */
export function curves(
  all: readonly Curve[],
  label: string,
  height: number,
): Plot.PlotOptions {
  const margin = { top: 34, bottom: 46 };
  const values = all.flatMap(({ points }) => points.map(([, value]) => value));
  const low = 10 ** Math.floor(Math.log10(Math.min(...values)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...values)));
  const xs = all[0].points.map(([x]) => x);
  const ends = all.map(({ points }) => points[points.length - 1]);
  const inner = height - margin.top - margin.bottom;
  const heights = ends.map(([, value]) => inner * Math.log(value / low) / Math.log(high / low));
  const apart = keepApart(heights);
  return {
    ...{ marginTop: margin.top, marginBottom: margin.bottom, marginLeft: 80, marginRight: 150 },
    x: {
      ...{ type: "log", domain: [xs[0], xs[xs.length - 1]], label, tickFormat: ",d" },
      ...{ labelArrow: "none", labelAnchor: "center", ticks: [10, 100, 1000, 10_000, 100_000] },
    },
    y: {
      ...{ type: "log", domain: [low, high], label: null, grid: true, tickSize: 0 },
      ticks: Math.round(Math.log10(high / low)),
      tickFormat: (value: number) => value.toLocaleString("en"),
    },
    marks: all.flatMap(({ label, points, colour, dashed }, i) => [
      Plot.line(points, {
        ...{ stroke: colour, strokeWidth: 2.25 },
        ...(dashed ? { strokeDasharray: "7,4" } : {}),
      }),
      Plot.text([ends[i]], {
        ...{ text: () => label, textAnchor: "start", fill: colour, fontWeight: 600 },
        ...{ dx: 9, dy: heights[i] - apart[i] },
      }),
    ]),
  };
}

/** Lifts labels, from the lowest up, until none touches the one below it. */
function keepApart(heights: readonly number[]): readonly number[] {
  const order = heights.map((_, i) => i).sort((a, b) => heights[a] - heights[b]);
  const moved = [...heights];
  for (const [k, i] of order.entries()) {
    if (k > 0) moved[i] = Math.max(moved[i], moved[order[k - 1]] + LABEL_GAP);
  }
  return moved;
}
