/**
 * A walk: one kernel over all boxes of its tensors, with each box's parts bound and their places as parameters.
 *
 * @module
 */

import type { Format } from "../../lib/tensor.ts";
import type { Kernel, Parameters } from "../wgsl/kernel.ts";
import { channelsOfLane, elementsOf } from "../wgsl/tiles.ts";
import {
  bytesOf,
  bytesPerChannel,
  type Elements,
  type Mask,
  type Moments,
  padded,
  type Slot,
  type Sums,
} from "./arrays.ts";
import type { Recorder } from "./launches.ts";
import { type Box, type Limits, planWalk, tiling, type WalkPlan } from "./plan.ts";
import type { Range } from "./programs.ts";

/** The tensors of a walk: one shape, each with its memory order; the first decides how channels lie. */
export type Tensors = Readonly<
  Record<string, { readonly slot: Slot<Elements>; readonly format: Format } | null>
>;

/** A walk that is planned. */
export interface Walk extends WalkPlan {
  /** Launches a kernel over every box. */
  readonly launch: (recorder: Recorder, launch: WalkLaunch) => void;
}

/** What a walk launches. */
export interface WalkLaunch {
  readonly kernel: Kernel;
  /** Arrays with a record per channel, by the kernel's names. */
  readonly arrays: Readonly<Record<string, Slot | null>>;
  /** Slices of each box, and the number of positions that each begins at a multiple of; 1 by default. */
  readonly slices: number;
  readonly unit?: number;
  /** Channels [from, to) that are walked, where it is not all of them. */
  readonly channels?: readonly [from: number, to: number];
  /** The kernel's own parameters, and arrays that it binds as a whole; a box here counts channels, not packs of them. */
  readonly also?: (box: Box) => {
    readonly parameters: Parameters;
    readonly ranges?: Readonly<Record<string, Range>>;
  };
}

/**
 * Plans a walk.
 *
 * @param shape logical shape of the tensors; not empty
 * @param tensors by the kernels' names
 * @param recordBytes bytes per channel of the largest array that is bound beside them
 * @param reread how many of the tensors the walk before or after this one reads too
 * @param limits what the device allows
 * @returns the walk
 */
export function walk(
  shape: readonly number[],
  tensors: Tensors,
  recordBytes: number,
  reread: number,
  limits: Limits,
): Walk {
  const given = Object.entries(tensors).flatMap(([name, tensor]) =>
    tensor ? [{ name, ...tensor, bytes: bytesOf(tensor.slot.contents.dtype) }] : []
  );
  const plan = planWalk(
    {
      ...{ shape, reread },
      formats: given.map(({ format }) => format),
      bytes: given.map(({ bytes }) => bytes),
      aligned: given.every(({ slot, bytes }) => slot.offset % (4 * bytes) === 0),
    },
    recordBytes,
    limits,
  );
  const { strides, boxes, tile, pack } = plan;
  const wide = channelsOfLane(pack);
  const named = given.map((tensor) => ({ ...tensor, bytes: tensor.bytes * elementsOf(pack) }));

  const launch = (
    recorder: Recorder,
    { kernel, arrays, slices, unit, channels: only, also }: WalkLaunch,
  ): void => {
    const one = {};
    for (const box of only ? clipped(boxes, only.map((channel) => channel / wide)) : boxes) {
      const real = { ...box, channel: box.channel * wide, channels: box.channels * wide };
      const { parameters, ranges = {} } = also?.(real) ?? { parameters: {} };
      const { workgroups, parameters: counts } = tiling(box, tile, slices, unit);
      const bound: Record<string, Range> = { ...ranges };
      const values: Record<string, number | readonly number[]> = { ...counts, ...parameters };
      named.forEach(({ name, slot, bytes }, i) => {
        const { sample, channel, place } = strides[i];
        const first = box.sample * sample + box.channel * channel + box.place * place;
        const last = first + (box.samples - 1) * sample + (box.channels - 1) * channel +
          (box.inner - 1) * place;
        const part = window(slot, first * bytes, (last + 1) * bytes, bytes, limits);
        bound[name] = part.range;
        values[name] = [part.at, sample, channel, place];
      });
      for (const [name, slot] of Object.entries(arrays)) {
        if (!slot) continue;
        const part = channelsOf(slot, real, limits);
        bound[name] = part.range;
        values[`${name}At`] = part.at;
      }
      const { channel, channels } = real;
      recorder.dispatch(kernel, bound, values, workgroups, {
        walk: one,
        channels: [channel, channel + channels],
      });
    }
  };
  return { ...plan, launch };
}

/** A mask as a kernel takes it, for a box that begins at a channel; nothing without one. */
export function bindMask(
  mask: Mask | null,
  channel: number,
): { readonly parameters: Parameters; readonly ranges: Readonly<Record<string, Range>> } {
  return {
    parameters: mask ? { maskWords: mask.words, maskChannel: channel } : {},
    ranges: mask ? { mask: mask.range } : {},
  };
}

/** What boxes have of some channels, counted in packs of them. */
function clipped(boxes: readonly Box[], [from, to]: readonly number[]): readonly Box[] {
  return boxes.flatMap((box) => {
    const channel = Math.max(box.channel, from);
    const channels = Math.min(box.channel + box.channels, to) - channel;
    return channels > 0 ? [{ ...box, channel, channels }] : [];
  });
}

/** The records of some channels, as an array of their own. */
export function ofChannels<C extends Moments | Sums>(
  slot: Slot<C>,
  [from, to]: readonly [from: number, to: number],
): Slot<C> {
  const record = bytesPerChannel(slot.contents);
  return {
    ...slot,
    offset: slot.offset + from * record,
    size: (to - from) * record,
    contents: { ...slot.contents, channels: to - from },
  };
}

/** The records of a box's channels. */
export function channelsOf(
  slot: Slot,
  { channel, channels }: Pick<Box, "channel" | "channels">,
  limits: Limits,
): { readonly range: Range; readonly at: number } {
  const record = bytesPerChannel(slot.contents);
  const element = { elements: 4, moments: 16, sums: 8 }[slot.contents.kind];
  return window(slot, channel * record, (channel + channels) * record, element, limits);
}

/** Bytes [from, to) of an array as a binding, which begins at an aligned offset; `at` is the first element in it. */
export function window(
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
