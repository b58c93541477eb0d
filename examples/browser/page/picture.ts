/**
 * The picture: the values of one channel, replica by replica; what each sees of them, and what becomes of them.
 *
 * @module
 */

import { share } from "../../batches.ts";
import type { State } from "./state.ts";
import { normalized, type Statistics, statisticsOf, type Values, valuesOf } from "./values.ts";

/** The values of one replica, or of all. */
export interface Row {
  readonly label: string;
  readonly values: readonly number[];
  /** Where one process has the same values, where that is of interest. */
  readonly ghosts: readonly number[] | null;
  /** What the batch norm of this row sees, where that is of interest. */
  readonly seen: Statistics | null;
  /** Which of the batch's images each value is of; null where an image has many values, or there are too many images. */
  readonly images: readonly number[] | null;
}

/** One of three panels. */
export interface Panel {
  readonly name: "given" | "local" | "sync";
  readonly rows: readonly Row[];
  readonly domain: readonly [low: number, high: number];
  /** What syncbn sees, across all rows, where that is of interest. */
  readonly band: Statistics | null;
  /** The same in words. */
  readonly words: string;
}

/** All three. */
export interface Picture {
  readonly panels: readonly Panel[];
  /** Images of the batch, by their numbers among the training images. */
  readonly images: readonly number[];
}

/** More images in a row are too many to be drawn. */
const MOST_IMAGES = 8;
const EDGE = 0.1;

/** Makes the picture of what was last looked at; null where nothing was. */
export function pictureOf({ look, channel, plan }: State): Picture | null {
  if (look === null || !plan?.runs.sync.task) return null;
  const { batches, perReplica } = plan.runs.sync.task;
  const parts = valuesOf(look, channel);
  const all = parts.flatMap(({ values }) => values);
  const whole = statisticsOf(all);
  const seen = parts.map(({ values }) => statisticsOf(values));

  let first = 0;
  const images = parts.map((part, rank) => {
    const own = share(batches[0], rank, perReplica).map((_, i) => first + i);
    first += own.length;
    return isDrawn(part, perReplica) ? own : null;
  });
  const allImages = images.every((own) => own !== null) && all.length <= 2 * MOST_IMAGES
    ? images.flat()
    : null;
  const rowsOf = (rows: readonly Omit<Row, "label" | "images">[]): readonly Row[] =>
    rows.map((row, i) =>
      i < parts.length
        ? { ...row, label: `${i + 1}`, images: images[i] }
        : { ...row, label: "all", images: allImages as readonly number[] | null }
    );

  const given = rowsOf([
    ...parts.map(({ values }, i) => ({ values, ghosts: null, seen: seen[i] })),
    { values: all, ghosts: null, seen: whole },
  ]);
  const one = parts.map(({ values }) => normalized(values, whole));
  const own = parts.map(({ values }, i) => normalized(values, seen[i]));
  const made = (values: readonly (readonly number[])[]) =>
    rowsOf([...values, values.flat()].map((row, i) => ({
      ...{ values: row, ghosts: i < one.length ? one[i] : one.flat(), seen: null },
    })));
  const outputs = domainOf([...one.flat(), ...own.flat()]);
  const edges = [...seen, whole].flatMap(({ mean, deviation }) => [
    mean - deviation,
    mean + deviation,
  ]);
  const panels: Panel[] = [{
    ...{ name: "given", rows: given, band: whole, domain: domainOf([...all, ...edges]) },
    words: `What comes in. ${
      seen.map((own, i) => `Replica ${i + 1} sees ${inWords(own)}`).join(". ")
    }. All together see ${inWords(whole)}.`,
  }, {
    ...{ name: "local", rows: made(own), band: null, domain: outputs },
    words: `What local batch norm makes of it: a value is up to ${
      written(furthest(own, one))
    } from where one process has it.`,
  }, {
    ...{ name: "sync", rows: made(one), band: null, domain: outputs },
    words: "What syncbn makes of it: every value is where one process has it.",
  }];
  return { panels, images: batches[0] };
}

/** The largest distance between values in the same places. */
function furthest(
  a: readonly (readonly number[])[],
  b: readonly (readonly number[])[],
): number {
  const apart = a.flatMap((row, i) => row.map((value, j) => Math.abs(value - b[i][j])));
  return apart.reduce((most, value) => Math.max(most, value), 0);
}

function isDrawn({ perImage }: Values, perReplica: number): boolean {
  return perImage === 1 && perReplica <= MOST_IMAGES;
}

function inWords({ mean, deviation }: Statistics): string {
  if (Number.isNaN(mean)) return "nothing";
  return `mean ${written(mean)}, deviation ${written(deviation)}`;
}

function written(value: number): string {
  return value.toFixed(2).replace("-", "−");
}

/** An interval with all values in it, and some room at its ends. */
function domainOf(values: readonly number[]): readonly [number, number] {
  const finite = values.filter(Number.isFinite);
  const low = finite.reduce((least, value) => Math.min(least, value), Infinity);
  const high = finite.reduce((most, value) => Math.max(most, value), -Infinity);
  if (low > high) return [-1, 1];
  const room = EDGE * (high - low) || 1;
  return [low - room, high + room];
}
