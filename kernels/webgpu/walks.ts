/**
 * Launches of one kernel over all boxes of its tensors, or over all channels, with each box's parts bound and their places as
 * parameters.
 *
 * @module
 */

import type { Format } from "../../lib/tensor.ts";
import type { Kernel, Parameters } from "../wgsl/kernel.ts";
import { channelsOfLane, elementsOf, type Tile } from "../wgsl/tiles.ts";
import {
  bytesOf,
  bytesPerChannel,
  elementBytes,
  type Elements,
  type Mask,
  padded,
  type Slot,
} from "./arrays.ts";
import type { Context } from "./context.ts";
import {
  type Box,
  channelTile,
  type Limits,
  planWalk,
  tiling,
  type Walked,
  type WalkPlan,
} from "./plan.ts";
import type { Range } from "./programs.ts";

/** A tensor's array and its memory order. */
export interface Laid {
  readonly slot: Slot<Elements>;
  readonly format: Format;
}

/** Arrays with a record per channel, by the kernels' names. */
export type Beside = Readonly<Record<string, Slot | null>>;

/** What is walked. */
export interface WalkOver {
  /** Logical shape of the tensors; not empty. */
  readonly shape: readonly number[];
  /** The tensors by the kernels' names; the first decides how channels lie. */
  readonly tensors: Readonly<Record<string, Laid | null>>;
  /** What is bound beside them. */
  readonly beside: Beside;
  /** How many of the tensors the walk before or after this one reads too, and should still be in the cache then. */
  readonly reread?: number;
  /** Bytes per channel of what a reduction writes, in so many slices. */
  readonly reduced?: Walked["reduced"];
}

/** What is launched: a kernel made of the tile and its own options. */
export interface Launch<O> {
  readonly kernel: (options: Tile & O) => Kernel;
  readonly options: O;
  readonly arrays: Beside;
  /** The kernel's own parameters. */
  readonly parameters?: Parameters;
}

/** What is launched over tensors. */
export interface WalkLaunch<O> extends Launch<O> {
  /** Slices of each box, and the number of positions that each begins at a multiple of; 1 by default. */
  readonly slices: number;
  readonly unit?: number;
  /** The mask that is read or written. */
  readonly mask?: Mask | null;
  /** Other arrays that are bound as a whole. */
  readonly whole?: Readonly<Record<string, Range>>;
}

/** A walk that is planned. */
export interface Walk extends WalkPlan {
  /** Launches a kernel over every box. */
  readonly launch: <O extends object>(launch: WalkLaunch<O>) => void;
}

/** Plans a walk. */
export function walk(
  { recorder, limits, kernels }: Context,
  { shape, tensors, beside, reread = 0, reduced = null }: WalkOver,
): Walk {
  const given = Object.entries(tensors).flatMap(([name, tensor]) =>
    tensor ? [{ name, ...tensor, bytes: bytesOf(tensor.slot.contents.dtype) }] : []
  );
  const plan = planWalk(
    {
      ...{ shape, reread, reduced, beside: largestRecord(beside) },
      formats: given.map(({ format }) => format),
      bytes: given.map(({ bytes }) => bytes),
      aligned: given.every(({ slot, bytes }) => slot.offset % (4 * bytes) === 0),
    },
    limits,
  );
  const { strides, boxes, tile, pack } = plan;
  const wide = channelsOfLane(pack);
  const packed = elementsOf(pack);

  const launch: Walk["launch"] = (launch) => {
    const { kernel, options, arrays, slices, unit, mask, whole } = launch;
    const made = kernels(kernel, { ...tile, ...options });
    const one = {};
    const own = mask ? { ...launch.parameters, maskWords: mask.words } : launch.parameters;
    for (const box of boxes) {
      const [channel, channels] = [box.channel * wide, box.channels * wide];
      const { workgroups, parameters } = tiling(box, tile, slices, unit);
      const ranges: Record<string, Range> = { ...whole, ...(mask && { mask: mask.range }) };
      const values: Record<string, number | readonly number[]> = {
        ...{ ...parameters, ...own, firstChannel: channel, firstSlice: box.cell * slices },
      };
      given.forEach(({ name, slot, bytes }, i) => {
        const { sample, channel, place } = strides[i];
        const first = box.sample * sample + box.channel * channel + box.place * place;
        const last = first + (box.samples - 1) * sample + (box.channels - 1) * channel +
          (box.inner - 1) * place;
        const size = bytes * packed;
        const { range, at } = window(slot, first * size, (last + 1) * size, size, limits);
        ranges[name] = range;
        values[name] = [at, sample, channel, place];
      });
      bind(arrays, { channel, channels }, limits, ranges, values);
      const channelsOfBox = [channel, channel + channels] as const;
      recorder.dispatch(made, ranges, values, workgroups, { walk: one, channels: channelsOfBox });
    }
  };
  return { ...plan, launch };
}

/** Launches a kernel that walks no tensor over all channels, in parts that can be bound. */
export function overChannels<O extends object>(
  { recorder, limits, kernels }: Context,
  channels: number,
  { kernel, options, arrays, parameters }: Launch<O>,
): void {
  const most = Math.floor((limits.bindingBytes - limits.alignment) / largestRecord(arrays));
  const tile = channelTile(limits.choices);
  const made = kernels(kernel, { ...tile, ...options });
  for (let channel = 0; channel < channels; channel += most) {
    const box = { channel, channels: Math.min(most, channels - channel) };
    const column = { samples: 1, inner: 1, channels: box.channels };
    const { workgroups, parameters: counts } = tiling(column, tile, 1);
    const ranges: Record<string, Range> = {};
    const values = { ...counts, ...parameters, firstChannel: channel, firstSlice: 0 };
    bind(arrays, box, limits, ranges, values);
    recorder.dispatch(made, ranges, values, workgroups);
  }
}

function largestRecord(arrays: Beside): number {
  let largest = 4;
  for (const slot of Object.values(arrays)) {
    if (slot) largest = Math.max(largest, bytesPerChannel(slot.contents));
  }
  return largest;
}

/** Binds the records of a box's channels. */
function bind(
  arrays: Beside,
  { channel, channels }: Pick<Box, "channel" | "channels">,
  limits: Limits,
  ranges: Record<string, Range>,
  values: Record<string, number | readonly number[]>,
): void {
  for (const [name, slot] of Object.entries(arrays)) {
    if (!slot) continue;
    const { contents } = slot;
    const record = bytesPerChannel(contents);
    const [from, to] = [channel * record, (channel + channels) * record];
    const { range, at } = window(slot, from, to, elementBytes(contents), limits);
    ranges[name] = range;
    values[`${name}At`] = at;
    if (contents.kind !== "elements") values[`${name}Slices`] = contents.slices;
  }
}

/** Bytes [from, to) of an array as a binding, which begins at an aligned offset; `at` is the first element in it. */
function window(
  { block, offset }: Range,
  from: number,
  to: number,
  bytes: number,
  { alignment }: Limits,
): { readonly range: Range; readonly at: number } {
  const start = Math.floor((offset + from) / alignment) * alignment;
  const range = { block, offset: start, size: padded(offset + to - start) };
  return { range, at: (offset + from - start) / bytes };
}
