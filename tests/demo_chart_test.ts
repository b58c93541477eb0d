/** The demo's chart: no text is cut off, and none lies on another, where the font is a wide one. */

import assert from "node:assert/strict";
import { chart } from "../examples/chart.ts";
import type { Comparison, Name, Result } from "../examples/compare.ts";

/** Advances of DejaVu Sans in thousandths of its size, regular and bold, of the characters that charts have. */
const ADVANCES: readonly (readonly [characters: string, regular: number, bold: number])[] = [
  ["a", 613, 675],
  ["bdgpq", 635, 716],
  ["c", 550, 593],
  ["e", 615, 678],
  ["f", 352, 435],
  ["hnu", 634, 712],
  ["ijl", 278, 343],
  ["k", 579, 665],
  ["m", 974, 1042],
  ["o", 612, 687],
  ["r", 411, 493],
  ["s", 521, 595],
  ["t", 392, 478],
  ["vxy", 592, 652],
  ["w", 818, 924],
  ["z", 525, 582],
  ["AH", 752, 837],
  ["L", 557, 637],
  ["W", 989, 1103],
  ["0123456789", 636, 696],
  ["%", 950, 1002],
  [" ,.;'()", 390, 457],
];

interface Text {
  readonly content: string;
  readonly left: number;
  readonly right: number;
}

function widthOf(content: string, size: number, bold: boolean): number {
  const advances = [...content].map((character) => {
    const found = ADVANCES.find(([characters]) => characters.includes(character));
    assert(found, `no advance of ${JSON.stringify(character)}`);
    return found[bold ? 2 : 1];
  });
  return size * advances.reduce((total, advance) => total + advance, 0) / 1000;
}

/** Titles of the chart, and what stands beside its curves. */
function textsOf(svg: string): { readonly titles: Text[]; readonly labels: Text[][] } {
  const title =
    /^<text x="([\d.]+)" y="[\d.]+" font-size="([\d.]+)" font-weight="(\d+)".*?>(.*?)</gm;
  const titles = [...svg.matchAll(title)].map(([, x, size, weight, content]) => ({
    ...{ content, left: Number(x) },
    right: Number(x) + widthOf(content, Number(size), weight === "600"),
  }));
  const panels = svg.split(/(?=<svg [^>]*class=)/).slice(1);
  const label =
    /translate\((\d+),[^)]*\)" font-weight="600"[^>]*><text transform="translate\(([\d.]+),[^>]*>(.*?)</g;
  const labels = panels.map((panel) => {
    const panelLeft = Number(/ x="(\d+)"/.exec(panel)?.[1]);
    return [...panel.matchAll(label)].map(([, dx, x, content]) => {
      const left = panelLeft + Number(dx) + Number(x);
      return { content, left, right: left + widthOf(content, 13, true) };
    });
  });
  return { titles, labels };
}

/** A comparison of a few steps. */
function comparisonOf(replicas: number, batch: number, accuracy: number): Comparison {
  const result = (name: Name, steps: readonly number[]): Result => ({
    ...{ name, title: name, msPerStep: 1 },
    exams: steps.map((step) => ({ step, accuracy, loss: 1 })),
    distances: steps.map((step) => ({ step, largest: 1e-7 })),
  });
  const steps = [1, 2, 3];
  return {
    ...{ replicas, batch, epochs: 1, stopAfter: 3, seed: 1, steps: 3, planned: 3 },
    results: {
      one: result("one", steps),
      control: result("control", steps),
      sync: result("sync", steps),
      local: result("local", batch === 1 ? [] : steps),
      none: result("none", steps),
    },
  };
}

for (const [replicas, batch] of [[4, 2], [1, 1437], [64, 1], [64, 22]]) {
  Deno.test(`the demo's chart has room for its text in DejaVu Sans: ${replicas} x ${batch}`, () => {
    const svg = chart(comparisonOf(replicas, batch, 1));
    const width = Number(/^<svg [^>]*?width="(\d+)"/.exec(svg)?.[1]);
    const { titles, labels: [accuracy, distance] } = textsOf(svg);
    assert(titles.length >= 4);
    assert.deepEqual([accuracy.length, distance.length], batch === 1 ? [3, 2] : [4, 3]);
    for (const { content, right } of [...titles, ...distance]) {
      assert(right <= width, `${content} ends at ${right} of ${width}`);
    }
    // The right panel's axis has its own numbers from here on.
    const panel = Math.max(...titles.map(({ left }) => left));
    const [heading] = titles.filter(({ content }) => content.startsWith("Accuracy"));
    for (const { content, right } of [heading, ...accuracy]) {
      assert(right <= panel, `${content} ends at ${right}, ${panel} begins another`);
    }
  });
}
