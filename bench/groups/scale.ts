/**
 * `deno task bench:scale`: prints the section of bench/README.md about more machines than there are. With `--write` it
 * replaces the section and draws `scale.svg`.
 *
 * @module
 */

import measured from "./measured.json" with { type: "json" };
import type { Measured } from "./measured.ts";
import { chart } from "./scale_chart.ts";
import { panels, section } from "./scale_section.ts";

/** The sections of bench/README.md that are written by programs: what stands before and after each. */
export const SECTIONS = {
  groups: ["<!-- groups:begin -->", "<!-- groups:end -->"],
  scale: ["<!-- scale:begin -->", "<!-- scale:end -->"],
} as const;

/**
 * Replaces what stands between the markers.
 *
 * @param page Markdown with both markers
 * @param text what to put between them
 * @param markers the markers
 * @returns the page with the text
 * @throws RangeError where a marker is missing or they are in the wrong order
 */
export function replaceSection(
  page: string,
  text: string,
  [BEGIN, END]: readonly [string, string] = SECTIONS.scale,
): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) {
    throw new RangeError(
      `Cannot replace the section as the page must have ${BEGIN} before ${END}: they are at ${begin} and ${end}`,
    );
  }
  return `${page.slice(0, begin + BEGIN.length)}\n\n${text}\n\n${page.slice(end)}`;
}

/**
 * Draws the chart.
 *
 * @param measured what calibrates the model
 * @returns an SVG document
 */
export function drawing(measured: Measured): string {
  return chart(
    "What synchronization costs on paper",
    "ResNet-50 over Ethernet with 25 Gbit/s and 25 us per message (assumed), one port per rank that every message " +
      "crosses; within hosts of 8 ranks as measured.",
    panels(measured),
  );
}

if (import.meta.main) {
  const text = section(measured);
  if (Deno.args.includes("--write")) {
    const readme = new URL("../README.md", import.meta.url);
    await Deno.writeTextFile(readme, replaceSection(await Deno.readTextFile(readme), text));
    await Deno.writeTextFile(new URL("scale.svg", import.meta.url), drawing(measured));
  } else {
    console.log(text);
  }
}
