/**
 * The chart of a run: the share of a plain copy's bandwidth, per batch and work.
 *
 * @module
 */

import * as Plot from "@observablehq/plot";
import { DOMParser } from "linkedom";
import { speedOf, titleOfCase, type Work, WORKS } from "./cases.ts";
import type { MeasuredGpu } from "./section.ts";
import { copySpeed, timesOf } from "./verdict.ts";

const COLOURS: Readonly<Record<Work, string>> = {
  inference: "#555555",
  forward: "#2e6fb7",
  backward: "#d1495b",
};
const [WIDTH, TOP, ROW, EDGE, LABELS] = [900, 96, 24, 24, 280];
const INK = "#222222";
const FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif";

/**
 * Draws the float32 cases, plain and fused, by share of the copy.
 *
 * @param measured the run
 * @returns an SVG document, readable on light and dark pages
 */
export function chart(measured: MeasuredGpu): string {
  const cases = measured.cases.filter(({ ours }) => ours.case.dtype === "float32");
  const points = cases.flatMap((one) =>
    WORKS.map((work) => ({
      batch: titleOfCase(one.ours.case),
      share: 100 * speedOf(one.ours.case, work, timesOf(one)[work]) / copySpeed(one),
      colour: COLOURS[work],
    }))
  );
  const height = 70 + ROW * cases.length;
  const title = measured.software
    ? "A software adapter: not measured on a GPU yet"
    : `Batch norm on ${measured.adapter}: share of a plain copy's bandwidth`;
  const document = new DOMParser().parseFromString("<html></html>", "text/html");
  const plot = Plot.plot({
    document,
    className: "gpu",
    width: WIDTH,
    height,
    marginLeft: LABELS,
    marginBottom: 40,
    style: { fontFamily: FONT, fontSize: "12.5px", color: INK, overflow: "visible" },
    x: {
      domain: [0, Math.max(110, ...points.map(({ share }) => share))],
      label: "% of the copy",
      labelArrow: "none",
      labelAnchor: "center",
      grid: true,
    },
    y: { type: "band", domain: cases.map(({ ours }) => titleOfCase(ours.case)), label: null },
    marks: [
      Plot.ruleX([100], { stroke: INK, strokeWidth: 1.5 }),
      Plot.dot(points, { x: "share", y: "batch", r: 4.5, fill: "colour" }),
    ],
  });
  plot.setAttribute("y", String(TOP));
  const text = (x: number, y: number, size: number, fill: string, content: string) =>
    `<text x="${x}" y="${y}" font-size="${size}" fill="${fill}">${content}</text>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${TOP + height + 12}" ` +
    `viewBox="0 0 ${WIDTH} ${
      TOP + height + 12
    }" font-family="${FONT}" role="img" aria-label="${title}">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    text(EDGE, 34, 20, INK, title),
    ...WORKS.flatMap((work, i) => [
      `<circle cx="${EDGE + 5 + 120 * i}" cy="64" r="5" fill="${COLOURS[work]}"/>`,
      text(EDGE + 16 + 120 * i, 68.5, 13, COLOURS[work], work),
    ]),
    plot.outerHTML,
    "</svg>\n",
  ].join("\n");
}
