/** How the kernels see a tensor, and how its memory is shared out among threads: every number that decides a launch. */

import { type DType, extents, type Format, type Tensor } from "../../lib/tensor.ts";

/** A tensor as the kernels walk it. Counts of elements. */
export interface Layout {
  readonly batch: number;
  readonly channels: number;
  /** Elements of a channel in one sample. */
  readonly inner: number;
  readonly elements: number;
  /** Values per channel. */
  readonly count: number;
  /** 1 for float16, as kernels take it. */
  readonly half: 0 | 1;
  /**
   * Lanes of a row where memory is walked as a matrix whose lanes always belong to the same channel; 0 where it is walked as rows
   * of one channel each.
   */
  readonly period: number;
  /** Lane j of a period belongs to channel (j / laneInner) % channels; neighbouring channels lie so far apart. */
  readonly laneInner: number;
}

/** Rows of fewer elements than this are walked as lanes of a matrix, if there are enough of them. */
const SHORT_ROW = 16;
const FEW_ROWS = 8;
/** Lanes come in vectors of four float32. */
const VECTOR = 4;
/**
 * A row of one strip is walked as one stream, its numbers in registers: four vectors, or three where there are three channels, or
 * six or twelve. Others are not worth a loop before they have some strips; nor is any in float16, which is widened by the row.
 */
const ONE_STRIP: readonly number[] = [16, 12];
const FEWEST_LANES = 64;

/** Says how the kernels shall walk a tensor. */
export function layoutOf({ shape, format, dtype }: Omit<Tensor<unknown>, "data">): Layout {
  const { batch, channels, inner } = extents(shape);
  const last = format === "channelsLast" || inner === 1;
  const short = inner < SHORT_ROW && batch >= FEW_ROWS;
  const laneInner = last ? 1 : inner;
  const elements = batch * channels * inner;
  return {
    batch,
    channels,
    inner,
    elements,
    laneInner,
    count: batch * inner,
    half: halfOf(dtype),
    period: elements > 0 && (last || short) ? periodOf(channels * laneInner, dtype) : 0,
  };
}

/** The storage of a tensor as kernels take it: 1 for float16. */
export function halfOf(dtype: DType): 0 | 1 {
  return dtype === "float16" ? 1 : 0;
}

/** Says whether the elements of a shape lie the same way in both memory orders. */
export function sameOrder(shape: readonly number[], a: Format, b: Format): boolean {
  const { channels, inner } = extents(shape);
  return a === b || channels === 1 || inner === 1;
}

/** The smallest multiple that fills whole vectors and is worth a loop. */
function periodOf(lanes: number, dtype: DType): number {
  const vectors = lanes % 4 === 0 ? lanes : lanes % 2 === 0 ? 2 * lanes : VECTOR * lanes;
  const strip = ONE_STRIP.find((strip) => strip % vectors === 0);
  if (strip && dtype === "float32") return strip;
  return vectors * Math.ceil(FEWEST_LANES / vectors);
}

/** Elements of a tensor up to which caches deliver it to a kernel: 4 MiB of it where there are more, 8 where it is alone. */
const CACHED = 1 << 20;
const CACHED_ALONE = 1 << 21;
/** Lanes of a row up to which a block of a tensor that is read alone, 16 rows, is a page of memory. */
const PAGED = 64;

/** Says whether a kernel walks columns in strips, which caches like and memory does not (`assembly/columns.ts`). */
export function inStrips({ elements, period }: Layout, tensors: number): 0 | 1 {
  const alone = tensors === 1;
  if (period > 0 && (ONE_STRIP.includes(period) || (alone && period <= PAGED))) return 1;
  return elements <= (alone ? CACHED_ALONE : CACHED) ? 1 : 0;
}

/** Elements of a part below which another thread costs more than it saves. */
export const WORTH_A_THREAD = 65_536;
/** Parts begin at a cache line, in float16 too. */
const ALIGNED = 32;

/** Elements [from, to) of a tensor. */
export interface Part {
  readonly from: number;
  readonly to: number;
}

/** Shares a tensor out among threads: contiguous parts, as many as are worth it, equal but for what does not divide. */
export function partsOf(
  elements: number,
  threads: number,
  least: number,
  multiple = ALIGNED,
): readonly Part[] {
  const worth = Math.min(threads, Math.floor(elements / Math.max(least, multiple)));
  if (worth < 2) return [{ from: 0, to: elements }];
  const grains = Math.ceil(elements / multiple);
  return Array.from({ length: worth }, (_, i) => ({
    from: Math.floor(grains * i / worth) * multiple,
    to: Math.min(Math.floor(grains * (i + 1) / worth) * multiple, elements),
  }));
}
