/**
 * The chart of the model: step overhead and bytes sent against the number of ranks.
 *
 * @module
 */

import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";

/** A line of the chart. */
export interface Curve {
  readonly label: string;
  readonly colour: string;
  readonly dashed?: boolean;
  readonly points: readonly (readonly [ranks: number, value: number])[];
}

/** One of the two panels, side by side. */
export interface Panel {
  readonly title: string;
  readonly curves: readonly Curve[];
}

const WIDTH = 1120;
const HEIGHT = 470;
const TOP = 88;
const EDGE = 24;
const MARGIN = { top: 34, right: 150, bottom: 46, left: 80 };
const LABEL_GAP = 17;
const INK = "#222";
const FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif";

/**
 * Draws both panels, with both axes logarithmic.
 *
 * @param title the headline
 * @param subtitle what is held fixed
 * @param panels the two panels; their values must be positive
 * @returns an SVG document, readable on light and dark pages
 */
export function chart(title: string, subtitle: string, panels: readonly [Panel, Panel]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" ` +
    `viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="${FONT}" role="img" aria-label="${title}">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(EDGE, 34, 20, 600, INK, title),
    text(EDGE, 58, 13.5, 400, "#555", subtitle),
    ...panels.flatMap((panel, i) => {
      const left = i * WIDTH / 2;
      return [text(left + EDGE, TOP + 12, 13.5, 600, INK, panel.title), draw(panel, left, i)];
    }),
    "</svg>\n",
  ].join("\n");
}

function draw({ curves }: Panel, left: number, index: number): string {
  const document = new DOMParser().parseFromString("<html></html>", "text/html");
  const values = curves.flatMap(({ points }) => points.map(([, value]) => value));
  const ranks = curves[0].points.map(([rank]) => rank);
  const low = 10 ** Math.floor(Math.log10(Math.min(...values)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...values)));
  const height = HEIGHT - TOP - 10;
  const inner = height - MARGIN.top - MARGIN.bottom;
  const ends = curves.map(({ points }) => points[points.length - 1]);
  const heights = ends.map(([, value]) => inner * Math.log(value / low) / Math.log(high / low));
  const spread = keepApart(heights);
  const plot = Plot.plot({
    document,
    className: `panel-${index}`,
    width: WIDTH / 2,
    height,
    marginTop: MARGIN.top,
    marginRight: MARGIN.right,
    marginBottom: MARGIN.bottom,
    marginLeft: MARGIN.left,
    style: { fontFamily: FONT, fontSize: "13px", color: INK, overflow: "visible" },
    x: {
      type: "log",
      domain: [ranks[0], ranks[ranks.length - 1]],
      label: "ranks",
      labelArrow: "none",
      labelAnchor: "center",
      ticks: [10, 100, 1000, 10_000, 100_000],
      tickFormat: ",d",
    },
    y: {
      type: "log",
      domain: [low, high],
      label: null,
      grid: true,
      tickSize: 0,
      ticks: Math.round(Math.log10(high / low)),
      tickFormat: (value: number) => value.toLocaleString("en"),
    },
    marks: [
      ...curves.map(({ points, colour, dashed }) =>
        Plot.line(points, {
          stroke: colour,
          strokeWidth: 2.25,
          ...(dashed ? { strokeDasharray: "7,4" } : {}),
        })
      ),
      ...curves.map(({ label, colour }, i) =>
        Plot.text([ends[i]], {
          text: () => label,
          textAnchor: "start",
          dx: 9,
          dy: heights[i] - spread[i],
          fill: colour,
          fontWeight: 600,
        })
      ),
    ],
  });
  plot.setAttribute("x", String(left));
  plot.setAttribute("y", String(TOP));
  return plot.outerHTML;
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
