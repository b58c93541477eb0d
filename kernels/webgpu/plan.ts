/**
 * How work is cut: a tensor into boxes that can be bound, a box into workgroups. Pure arithmetic, one place for every
 * number that decides a launch.
 */

import { type Extents, extents, type Format } from "../../lib/tensor.ts";
import { aheadOf, channelsOfLane, elementsOf, type Pack, type Tile } from "../wgsl/tiles.ts";
import type { Weighing } from "../wgsl/weights.ts";
import {
  bytesOf,
  bytesPerChannel,
  type Contents,
  type Elements,
  recordBytes,
  type Slot,
  type StatisticKind,
} from "./arrays.ts";

/** Workgroups that a reduction over a large tensor should have, so that few channels fill a GPU too. */
const WORKGROUPS = 4096;
/** Elements that an invocation of an elementwise kernel takes at least. */
const WALKED = 16;
/** Slices that one invocation merges when the array is read; and slices per channel at most, windows aside. */
const SLICES_PER_ROW = 8;
const MOST_SLICES = 1024;
/** Lanes of a workgroup at most: 64 float32, or 16 packs of four, are two lines of most caches. */
const MOST_LANES = { none: 64, places: 64, channels: 16 } as const;
/** Packs of channels have four times the statistics, and the memory of a workgroup is 16 KiB. */
const MOST_INVOCATIONS = { none: 256, places: 256, channels: 128 } as const;
/** Lanes of a workgroup that walks no tensor. */
const MERGED_LANES = 32;

/** A tensor's extents as the kernels see them; one of them counts packs. */
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

/** How the memory of a walk's tensors lies. */
export interface Ground {
  readonly geometry: Geometry;
  /** Of each tensor. */
  readonly strides: readonly Strides[];
  /** Whether neighbours in memory are neighbouring channels of the first. */
  readonly channelsLast: boolean;
  /** What is taken at a time: the unit of geometry and strides. */
  readonly pack: Pack;
}

/**
 * Merges samples and places where every tensor's memory allows, so that a kernel walks one long row: with one channel,
 * and channels last. Takes four neighbours as one where they are of one kind in every tensor, and begin where a vec4 may.
 */
export function layOut(
  shape: readonly number[],
  formats: readonly Format[],
  aligned: boolean,
): Ground {
  const { batch, channels, inner } = extents(shape);
  // Without spatial extents the two formats are one.
  const last = (format: Format) => channels > 1 && (format === "channelsLast" || inner === 1);
  const folds = channels === 1 || formats.every(last);
  const row = folds ? batch * inner : inner;
  const pack = aligned && !formats.some(last) && row % 4 === 0
    ? "places"
    : aligned && formats.every(last) && channels % 4 === 0
    ? "channels"
    : "none";
  // Counted in packs from here on.
  const geometry = {
    samples: folds ? 1 : batch,
    channels: channels / channelsOfLane(pack),
    inner: pack === "places" ? row / 4 : row,
  };
  const strides = formats.map((format) => ({
    sample: geometry.channels * geometry.inner,
    channel: last(format) ? 1 : geometry.inner,
    place: last(format) ? geometry.channels : 1,
  }));
  return { geometry, strides, channelsLast: last(formats[0]), pack };
}

/** One lane per workgroup where a channel's places are neighbours, else as many as lie side by side. */
export function tileOf(
  { geometry: { samples, channels }, channelsLast, pack }: Ground,
  workgroup: number,
): Tile {
  let lanes = 1;
  while (channelsLast && lanes < MOST_LANES[pack] && lanes < channels) lanes *= 2;
  const invocations = Math.min(workgroup, MOST_INVOCATIONS[pack]);
  return { lanes, workgroup: invocations, pack, flat: samples === 1 };
}

/** How workgroups are made up that walk no tensor. */
export function channelTile(workgroup: number): Tile {
  return { lanes: MERGED_LANES, workgroup, pack: "none", flat: true };
}

/**
 * Cuts a geometry into boxes of which every tensor's part fits a binding: whole samples where one fits, else parts of
 * one. A grid: every channel meets the same cells, of which there are so many. A binding holds `mostElements` packs of a
 * tensor, and a box has `mostChannels` channels (or packs of them) at most.
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
      `Cannot launch over a tensor of ${samples} samples, ${channels} channels and ${inner} places as the statistics ` +
        `of one channel must fit a binding: use a larger maxBindingBytes or a smaller batch`,
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
  { samples, inner }: Geometry,
  { channels }: Pick<Geometry, "channels">,
  cells: number,
  { lanes, workgroup, pack }: Tile,
): number {
  const rows = workgroup / lanes;
  const wanted = Math.ceil(WORKGROUPS / (Math.ceil(channels / lanes) * cells));
  const useful = Math.ceil(samples * inner / cells / (rows * aheadOf(pack)));
  const cheap = Math.floor(Math.min(MOST_SLICES, SLICES_PER_ROW * rows) / cells);
  return Math.max(1, Math.min(wanted, useful, cheap));
}

/** Slices of an elementwise kernel: more work for each workgroup the more statistics it has to merge first. */
export function shares(
  { samples, inner }: Geometry,
  { lanes, workgroup, pack }: Tile,
  merged: number,
): number {
  const rows = workgroup / lanes;
  const least = WALKED / elementsOf(pack);
  return Math.ceil(samples * inner / (rows * Math.max(least, 4 * Math.ceil(merged / rows))));
}

/**
 * Workgroups of a box in so many slices of equal length, which begin at multiples of `unit` positions, and the parameters that
 * every kernel has.
 */
export function tiling(box: Geometry, { lanes }: Tile, slices: number, unit = 1) {
  const positions = box.samples * box.inner;
  const span = Math.ceil(positions / slices / unit) * unit;
  return {
    workgroups: Math.ceil(box.channels / lanes) * slices,
    parameters: { channels: box.channels, positions, inner: box.inner, span, slices, zero: 0 },
  };
}

/** What a device allows. */
export interface Limits {
  /** Bytes of a storage binding at most. */
  readonly bindingBytes: number;
  /** Bytes that the offset of a binding is a multiple of. */
  readonly alignment: number;
  /** Storage buffers of a kernel at most. */
  readonly storageBuffers: number;
  /** Invocations of a workgroup. */
  readonly workgroup: number;
}

/** A tensor's array, as far as a plan is concerned, and its memory order. */
export interface Laid<S = Pick<Slot<Elements>, "contents" | "offset">> {
  readonly slot: S;
  readonly format: Format;
}

/** What is walked. */
export interface WalkOver<T = Laid, S = { readonly contents: Contents }> {
  /** Logical shape of the tensors; not empty. */
  readonly shape: readonly number[];
  /** The tensors by the kernels' names; the first decides how channels lie. */
  readonly tensors: Readonly<Record<string, T | null>>;
  /** Arrays with a record per channel that are bound beside them, by the kernels' names. */
  readonly beside: Readonly<Record<string, S | null>>;
  /** What a reduction writes, in slices. */
  readonly reduced?: StatisticKind;
  /** Weights of the examples. */
  readonly weights?: (Weighing & { readonly slot: Laid["slot"] }) | null;
}

/** How tensors are walked. */
export interface WalkPlan extends Ground {
  readonly tile: Tile;
  readonly boxes: readonly Box[];
  /** Cells that each channel is cut into. */
  readonly cells: number;
  /** Slices of each box: of a reduction, or of an elementwise kernel that merges so many slices first. */
  readonly slices: (merged: number) => number;
}

/** Plans a walk: everything that decides how kernels run over tensors. */
export function planWalk(over: WalkOver, limits: Limits): WalkPlan {
  const { shape, beside, reduced, weights } = over;
  const tensors = Object.values(over.tensors).filter((tensor) => tensor !== null);
  const bytes = tensors.map(({ slot: { contents } }) => bytesOf(contents.dtype));
  // What others have wrapped may begin anywhere.
  const aligned = tensors.every(({ slot }, i) => slot.offset % (4 * bytes[i]) === 0) &&
    (!weights || packsWeights(weights, extents(shape)));
  const ground = layOut(shape, tensors.map(({ format }) => format), aligned);
  const { geometry, strides, pack } = ground;
  const tile = tileOf(ground, limits.workgroup);
  const packBytes = Math.max(...bytes) * elementsOf(pack);
  const room = limits.bindingBytes - limits.alignment;
  const most = (record: number) => Math.floor(room / record / channelsOfLane(pack));
  const boxed = (channels: number) =>
    cut(geometry, strides, Math.floor(room / packBytes), channels);
  const { boxes, cells } = boxed(most(largestRecord(beside)));
  if (!reduced) {
    const slices = (merged: number) => shares(boxes[0], tile, merged);
    return { ...ground, tile, boxes, cells, slices };
  }
  const slices = slicesOf(geometry, boxes[0], cells, tile);
  // The slices' own array is bound too, and may be the largest.
  const fit = most(recordBytes(reduced, slices * cells));
  const fitting = fit < boxes[0].channels ? boxed(fit).boxes : boxes;
  return { ...ground, tile, boxes: fitting, cells, slices: () => slices };
}

/** Whether four places may have their weights at once: they begin where a vec4 may, or belong to one sample. */
function packsWeights(
  { weights, weightsDtype, slot }: NonNullable<WalkOver["weights"]>,
  { channels, inner }: Extents,
): boolean {
  return weights === "perSample"
    ? channels > 1 || inner % 4 === 0
    : slot.offset % (4 * bytesOf(weightsDtype)) === 0;
}

/** Bytes per channel of the largest of some arrays. */
export function largestRecord(arrays: WalkOver["beside"]): number {
  let largest = 4;
  for (const slot of Object.values(arrays)) {
    if (slot) largest = Math.max(largest, bytesPerChannel(slot.contents));
  }
  return largest;
}
