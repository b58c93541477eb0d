/** A history of healths as a picture. */

import { wrongKind } from "../words.ts";
import type { Health } from "./health.ts";

const [LEFT, RIGHT] = [50, 620];
const COLOURS = ["#0072b2", "#d55e00", "#009e73"];

/** A line of a panel: its name, and its value at a health, null where there is none. */
type Line = readonly [name: string, value: (health: Health) => number | null];

const share = (name: "collapsed" | "nonFinite" | "differing"): Line => [
  name,
  (health) => (health[name]?.length ?? 0) / health.channels,
];
const SHARES: readonly Line[] = [
  /* @__PURE__ */ share("collapsed"),
  /* @__PURE__ */ share("nonFinite"),
  /* @__PURE__ */ share("differing"),
];
const DRIFTS: readonly Line[] = [
  ["meanDrift", ({ meanDrift }) => meanDrift],
  ["varianceDrift", ({ varianceDrift }) => varianceDrift],
];

/**
 * Draws a history of healths as an SVG, over training: above collapsed, non-finite and differing channels as shares of all,
 * below the drifts of mean and variance.
 *
 * @param history healths of one batch norm, in order, at least one
 * @returns a document of 640 by 440
 *
 * @example
 * ```ts
 * import { describe, healthSvg, initBatchNorm, referenceDevice } from "@syncbn/syncbn";
 *
 * const device = referenceDevice();
 * const health = await describe(initBatchNorm(device, 2), { device });
 * console.assert(healthSvg([health, health]).startsWith("<svg"));
 * ```
 */
export function healthSvg(history: readonly Health[]): string {
  if (!Array.isArray(history) || history.length === 0) {
    throw wrongKind("draw the healths", "history must be a list of at least one", history);
  }
  const finite = history.flatMap((health) => DRIFTS.map(([, value]) => value(health) ?? 0))
    .filter(Number.isFinite);
  const most = Math.max(Number.MIN_VALUE, ...finite);
  const [first, last] = [history[0], history[history.length - 1]].map(({ batches }) => batches);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 440" font-family="sans-serif" font-size="13">` +
    `<title>Channels that are not well, and drift</title><rect width="640" height="440" fill="#fff"/>` +
    panel(history, SHARES, { top: 40, bottom: 200, most: 1, called: "100 %" }) +
    panel(history, DRIFTS, {
      ...{ top: 250, bottom: 410, most },
      called: finite.some((value) => value > 0) ? most.toPrecision(2) : "0",
    }) +
    `<text x="${LEFT}" y="432">batch ${first}</text>` +
    `<text x="${RIGHT}" y="432" text-anchor="end">batch ${last}</text></svg>\n`;
}

/** Axes, names and lines; a line has gaps where there is no number, and stays at the top where it is infinite. */
function panel(
  history: readonly Health[],
  lines: readonly Line[],
  { top, bottom, most, called }: {
    readonly top: number;
    readonly bottom: number;
    readonly most: number;
    readonly called: string;
  },
): string {
  const x = (i: number) => LEFT + (RIGHT - LEFT) * i / Math.max(1, history.length - 1);
  const drawn = lines.map(([name, value], at) => {
    const points = history.flatMap((health, i) => {
      const is = value(health);
      if (is === null || Number.isNaN(is)) return [];
      const y = bottom - (bottom - top) * Math.min(1, is / most);
      return [`${x(i).toFixed(1)},${y.toFixed(1)}`];
    });
    const line = `fill="none" stroke="${COLOURS[at]}" stroke-width="2"`;
    return `<polyline ${line} points="${points.join(" ")}"/>` +
      `<text x="${LEFT + 190 * at}" y="${top - 16}" fill="${COLOURS[at]}">${name}</text>`;
  });
  return `<path d="M${LEFT},${top}V${bottom}H${RIGHT}" fill="none" stroke="#666"/>` +
    `<text x="8" y="${top + 5}">${called}</text><text x="8" y="${bottom}">0</text>${
      drawn.join("")
    }`;
}
