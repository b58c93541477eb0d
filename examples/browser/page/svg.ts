/**
 * Panels of the picture as SVG. Colours are the style sheet's.
 *
 * @module
 */

import { type Images, SIDE } from "../../digits.ts";
import type { Panel, Row } from "./picture.ts";

const WIDTH = 360;
const LEFT = 30;
const RIGHT = 6;
const AXIS = 24;
const DIGIT = 19;
const DOT = 3.2;
const BINS = 72;
/** Width of the bell that a value adds to a density, as a share of the axis. */
const BELL = 0.02;

/** Where values stand in a panel. */
interface Frame {
  readonly panel: Panel;
  readonly rowHeight: number;
  readonly height: number;
  readonly x: (value: number) => number;
}

/**
 * Draws the batch's images as symbols that panels use.
 *
 * @param images their numbers, in the order in which rows count them
 * @param training all images
 * @returns an SVG document's content, with no text
 */
export function symbols(images: readonly number[], { pixels }: Images): string {
  return images.map((image, i) => {
    const own = pixels.subarray(image * SIDE ** 2, (image + 1) * SIDE ** 2);
    const path = [...own].map((ink, at) =>
      ink < 0.4 ? "" : `M${at % SIDE} ${Math.floor(at / SIDE)}h1v1h-1z`
    ).join("");
    return `<symbol id="image-${i}" viewBox="0 0 ${SIDE} ${SIDE}"><path d="${path}"/></symbol>`;
  }).join("");
}

/** Draws a panel. */
export function drawPanel(panel: Panel): string {
  const { rows, domain: [low, high] } = panel;
  const rowHeight = rows.length > 6 ? 27 : 36;
  const height = rowHeight * rows.length;
  const x = (value: number) => LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low);
  const frame: Frame = { panel, rowHeight, height, x };
  return `<svg viewBox="0 0 ${WIDTH} ${height + AXIS}" role="img" aria-label="${panel.words}">${
    [band(frame), axis(frame), ...rows.map((row, i) => drawRow(row, i, frame))].join("")
  }</svg>`;
}

function band({ panel, height, x }: Frame): string {
  if (panel.band === null) return "";
  const { mean, deviation } = panel.band;
  const [from, to] = [x(mean - deviation), x(mean + deviation)].map(fixed);
  return `<rect class="band" x="${from}" y="0" width="${fixed(+to - +from)}" height="${height}"/>` +
    `<path class="band-mean" d="M${fixed(x(mean))} 0v${height}"/>`;
}

function axis({ panel: { domain }, height, x }: Frame): string {
  const marks = ticks(domain).map((value) =>
    `<path class="tick" d="M${fixed(x(value))} 0v${height}"/>` +
    `<text class="axis" x="${fixed(x(value))}" y="${height + 16}">${numeral(value)}</text>`
  );
  return marks.join("") + `<path class="line" d="M${LEFT} ${height}H${WIDTH - RIGHT}"/>`;
}

function drawRow(row: Row, index: number, frame: Frame): string {
  const { rowHeight } = frame;
  const { label, values, ghosts, images } = row;
  const isAll = label === "all";
  const base = rowHeight * (index + 1);
  const content = images === null && values.length > 24
    ? [
      ghosts ? density(ghosts, "ghost", frame) : "",
      density(values, ghosts ? "curve" : "area", frame),
    ]
    : [
      ghosts ? marks(ghosts, images, "ghost", frame) : "",
      ghosts ? links(values, ghosts, frame) : "",
      marks(values, images, "mark", frame),
    ];
  return `<g class="row${isAll ? " all" : ""}" transform="translate(0 ${base - rowHeight})">` +
    `<path class="line" d="M${LEFT} ${isAll ? 0 : rowHeight}H${WIDTH - RIGHT}"/>` +
    `<text class="label" x="${LEFT - 8}" y="${rowHeight / 2 + 4}">${label}</text>` +
    content.join("") + bracket(row, frame) + `</g>`;
}

/** Values as small images or dots; which one it is stays at its place among its siblings, so that it can glide. */
function marks(
  values: readonly number[],
  images: readonly number[] | null,
  name: string,
  { rowHeight, x }: Frame,
): string {
  const middle = rowHeight / 2;
  return values.map((value, i) => {
    if (images === null) {
      return `<circle class="${name}" r="${DOT}" style="transform:translate(${fixed(x(value))}px,${
        fixed(middle)
      }px)"/>`;
    }
    const [left, top] = [x(value) - DIGIT / 2, middle - DIGIT / 2 - 2];
    return `<use class="${name}" href="#image-${
      images[i]
    }" width="${DIGIT}" height="${DIGIT}" style="transform:translate(${fixed(left)}px,${
      fixed(top)
    }px)"/>`;
  }).join("");
}

/** How far values are from where one process has them. */
function links(values: readonly number[], ghosts: readonly number[], frame: Frame): string {
  const { rowHeight, x } = frame;
  return values.map((value, i) =>
    `<path class="link" d="M${fixed(x(ghosts[i]))} ${rowHeight - 5}H${fixed(x(value))}"/>`
  ).join("");
}

function density(
  values: readonly number[],
  name: string,
  { panel: { domain: [low, high] }, rowHeight, x }: Frame,
): string {
  const bell = BELL * (high - low);
  const places = Array.from({ length: BINS + 1 }, (_, i) => low + (high - low) * i / BINS);
  const heights = places.map((place) =>
    values.reduce((sum, value) => sum + Math.exp(-(((value - place) / bell) ** 2) / 2), 0)
  );
  const tallest = heights.reduce((most, value) => Math.max(most, value), 1e-9);
  const scale = (rowHeight - 9) / tallest;
  const line = places.map((place, i) =>
    `${i ? "L" : "M"}${fixed(x(place))} ${fixed(rowHeight - 2 - scale * heights[i])}`
  ).join("");
  return `<path class="${name}" d="${line}"/>`;
}

/** What a batch norm sees: a mean and a deviation to both sides. */
function bracket({ seen, label }: Row, { rowHeight, x }: Frame): string {
  if (seen === null || Number.isNaN(seen.mean)) return "";
  const { mean, deviation } = seen;
  const y = rowHeight - 5;
  const [from, at, to] = [mean - deviation, mean, mean + deviation].map((value) => fixed(x(value)));
  return `<path class="seen${label === "all" ? " by-all" : ""}" ` +
    `d="M${from} ${y - 4}v8M${from} ${y}H${to}M${to} ${y - 4}v8M${at} ${y - 9}v13"/>`;
}

/** Three to six round numbers within an interval. */
export function ticks([low, high]: readonly [number, number]): readonly number[] {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, i) => (first + i) * step);
}

function numeral(value: number): string {
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

function fixed(value: number): string {
  return value.toFixed(1);
}
