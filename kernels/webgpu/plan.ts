/**
 * How work is cut: a tensor into boxes that can be bound, a box into workgroups. Pure arithmetic, one place for every
 * number that decides a launch.
 *
 * @module
 */

import { extents, type Format } from "../../lib/tensor.ts";
import { HELD, type Tile } from "../wgsl/tiles.ts";

/** Workgroups that a reduction over a large tensor should have, so that few channels fill a GPU too. */
const WORKGROUPS = 4096;
/** Slices that one invocation merges when the array is read; and slices per channel at most, windows aside. */
const SLICES_PER_ROW = 8;
const MOST_SLICES = 1024;
/** Positions that an invocation of an elementwise kernel walks. */
const WALKED = 16;
/** Channels of a workgroup at most: 64 float32 are two lines of most caches. */
const MOST_LANES = 64;
/** Channels of a workgroup that walks no tensor. */
const MERGED_LANES = 32;
/** Invocations of a workgroup: what WebGPU grants everywhere, and fewer where software pays for each of them. */
const WORKGROUP = { hardware: 256, software: 64 } as const;

/** A tensor's extents as the kernels see them. */
export interface Geometry {
  readonly samples: number;
  readonly channels: number;
  readonly inner: number;
}

/** Elements between neighbours. */
export interface Strides {
  readonly sample: number;
  readonly channel: number;
  readonly place: number;
}

/** A part of a geometry, from a corner on. */
export interface Box extends Geometry {
  readonly sample: number;
  readonly channel: number;
  readonly place: number;
  /** Which of the boxes that share its channels it is. */
  readonly cell: number;
}

/**
 * Merges samples and places where every tensor's memory allows, so that a kernel walks one long row: with one channel,
 * and channels last.
 *
 * @param shape logical shape of the tensors
 * @param formats memory order of each
 * @returns the geometry, the strides of each, and whether neighbours in memory are neighbouring channels of the first
 */
export function layOut(
  shape: readonly number[],
  formats: readonly Format[],
): { geometry: Geometry; strides: readonly Strides[]; channelsLast: boolean } {
  const { batch, channels, inner } = extents(shape);
  // Without spatial extents the two formats are one.
  const last = (format: Format) => channels > 1 && (format === "channelsLast" || inner === 1);
  const folds = channels === 1 || formats.every(last);
  const geometry = folds
    ? { samples: 1, channels, inner: batch * inner }
    : { samples: batch, channels, inner };
  const strides = formats.map((format) => ({
    sample: geometry.channels * geometry.inner,
    channel: last(format) ? 1 : geometry.inner,
    place: last(format) ? channels : 1,
  }));
  return { geometry, strides, channelsLast: last(formats[0]) };
}

/** Invocations of a workgroup on an adapter. */
export function workgroupOf(isFallbackAdapter: boolean): number {
  return WORKGROUP[isFallbackAdapter ? "software" : "hardware"];
}

/** One channel per workgroup where a channel's places are neighbours, else as many as lie side by side. */
export function tileOf(channels: number, channelsLast: boolean, workgroup: number): Tile {
  let lanes = 1;
  while (channelsLast && lanes < MOST_LANES && lanes < channels) lanes *= 2;
  return { lanes, workgroup };
}

/** How workgroups are made up that walk no tensor. */
export function channelTile(workgroup: number): Tile {
  return { lanes: MERGED_LANES, workgroup };
}

/**
 * Cuts a geometry into boxes of which every tensor's part fits a binding: whole samples where one fits, else parts of
 * one. A grid: every channel meets the same cells.
 *
 * @param geometry what to cut; not empty
 * @param strides of every tensor
 * @param mostElements how many elements of a tensor a binding holds
 * @param mostChannels how many channels of the arrays per channel a binding holds
 * @returns the boxes, and the number of cells that each channel is cut into
 */
export function cut(
  geometry: Geometry,
  strides: readonly Strides[],
  mostElements: number,
  mostChannels: number,
): { readonly boxes: readonly Box[]; readonly cells: number } {
  const { samples, channels, inner } = geometry;
  const fit = (count: number) => Math.max(1, Math.floor(mostElements / count));
  const perSample = channels * inner;
  let [dn, dc, di] = [Math.min(samples, fit(perSample)), channels, inner];
  if (perSample > mostElements) {
    // A tensor that strides over places is cut by channels, one that strides over channels by places, two by both.
    for (const { channel, place } of strides) {
      if (channel > place) [dc, di] = [Math.min(dc, fit(inner)), Math.min(di, mostElements)];
      else [dc, di] = [Math.min(dc, mostElements), Math.min(di, fit(channels))];
    }
  }
  dc = Math.min(dc, mostChannels);
  if (dc < 1) {
    throw new RangeError(
      `Cannot cut the tensor as the statistics of one channel must fit a binding: current shape is ` +
        `(${samples}, ${channels}, ${inner}); use a larger maxBindingBytes or a smaller batch`,
    );
  }
  const boxes: Box[] = [];
  let cell = 0;
  for (let sample = 0; sample < samples; sample += dn) {
    for (let place = 0; place < inner; place += di, cell++) {
      for (let channel = 0; channel < channels; channel += dc) {
        boxes.push({
          ...{ sample, channel, place, cell },
          samples: Math.min(dn, samples - sample),
          channels: Math.min(dc, channels - channel),
          inner: Math.min(di, inner - place),
        });
      }
    }
  }
  return { boxes, cells: cell };
}

/** Slices per cell of a reduction: enough to fill a GPU, few enough to be merged by whoever reads them. */
export function slicesOf(
  { samples, channels, inner }: Geometry,
  cells: number,
  { lanes, workgroup }: Tile,
): number {
  const rows = workgroup / lanes;
  const wanted = Math.ceil(WORKGROUPS / (Math.ceil(channels / lanes) * cells));
  const useful = Math.ceil(samples * inner / cells / (rows * HELD));
  const cheap = Math.floor(Math.min(MOST_SLICES, SLICES_PER_ROW * rows) / cells);
  return Math.max(1, Math.min(wanted, useful, cheap));
}

/** Slices of an elementwise kernel: more work for each workgroup the more statistics it has to merge first. */
export function shares(
  { samples, inner }: Geometry,
  { lanes, workgroup }: Tile,
  merged: number,
): number {
  const rows = workgroup / lanes;
  return Math.ceil(samples * inner / (rows * Math.max(WALKED, 4 * Math.ceil(merged / rows))));
}

/** A box's tile parameters, in so many slices of equal length, and its number of workgroups. */
export function tiling(box: Geometry, { lanes }: Tile, slices: number) {
  const positions = box.samples * box.inner;
  const span = Math.ceil(positions / slices);
  return {
    workgroups: Math.ceil(box.channels / lanes) * slices,
    parameters: { channels: box.channels, positions, inner: box.inner, span, slices },
  };
}
