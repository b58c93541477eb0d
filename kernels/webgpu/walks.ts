/**
 * Launches of one kernel over all boxes of its tensors, or over all channels, with each box's parts bound and their places as
 * parameters.
 */

import type { Kernel, Parameters } from "../wgsl/kernel.ts";
import { extents } from "../../lib/tensor.ts";
import { channelsOfLane, elementsOf, type Tile } from "../wgsl/tiles.ts";
import { isPacked } from "../wgsl/weights.ts";
import {
  bytesPerChannel,
  elementBytes,
  type Elements,
  type Mask,
  padded,
  type Slot,
} from "./arrays.ts";
import type { Context } from "./context.ts";
import type { GivenWeights } from "./given.ts";
import {
  type Box,
  channelTile,
  type Laid,
  largestRecord,
  type Limits,
  planWalk,
  tiling,
  type WalkOver,
  type WalkPlan,
} from "./plan.ts";
import type { Range } from "./programs.ts";

/** What is launched: a kernel made of the tile and its own options. */
export interface Launch<O> {
  readonly kernel: (options: Tile & O) => Kernel;
  readonly options: O;
  /** Arrays with a record per channel, by the kernels' names. */
  readonly arrays: Readonly<Record<string, Slot | null>>;
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
  over: WalkOver<Laid<Slot<Elements>>, Slot> & { readonly weights?: GivenWeights | null },
): Walk {
  const plan = planWalk(over, limits);
  const { strides, boxes, tile, pack } = plan;
  const given = Object.entries(over.tensors).filter(([, tensor]) => tensor !== null);
  const wide = channelsOfLane(pack);
  const packed = elementsOf(pack);

  const launch: Walk["launch"] = (launch) => {
    const { kernel, options, arrays, slices, unit, mask, whole } = launch;
    const made = kernels(kernel, { ...tile, ...options });
    for (const box of boxes) {
      const [channel, channels] = [box.channel * wide, box.channels * wide];
      const { workgroups, parameters } = tiling(box, tile, slices, unit);
      const ranges: Record<string, Range> = { ...whole, ...(mask && { mask: mask.range }) };
      const values: Record<string, number | readonly number[]> = {
        ...{
          ...parameters,
          ...launch.parameters,
          maskWords: mask?.words ?? 0,
          firstChannel: channel,
          firstSlice: box.cell * slices,
        },
      };
      given.forEach(([name, tensor], i) => {
        const { slot } = tensor!;
        const { sample, channel, place } = strides[i];
        const first = box.sample * sample + box.channel * channel + box.place * place;
        const last = first + (box.samples - 1) * sample + (box.channels - 1) * channel +
          (box.inner - 1) * place;
        const size = packed * elementBytes(slot.contents);
        const { range, at } = window(slot, first * size, (last + 1) * size, size, limits);
        ranges[name] = range;
        values[name] = [at, sample, channel, place];
      });
      if (over.weights) bindWeights(over.weights, over.shape, plan, box, limits, ranges, values);
      bind(arrays, { channel, channels }, limits, ranges, values);
      recorder.dispatch(made, ranges, values, workgroups);
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
  const tile = channelTile(limits.workgroup);
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

/** Binds the weights of a box's positions, which have no channels: positions are counted over the whole tensor. */
function bindWeights(
  { slot, weights }: GivenWeights,
  shape: readonly number[],
  { geometry: { inner }, pack }: WalkPlan,
  box: Box,
  limits: Limits,
  ranges: Record<string, Range>,
  values: Record<string, number | readonly number[]>,
): void {
  const wide = pack === "places" ? 4 : 1;
  const share = weights === "perSample" ? extents(shape).inner / wide : 1;
  const size = elementBytes(slot.contents) * (isPacked(pack, weights) ? wide : 1);
  const first = box.sample * inner + box.place;
  const last = first + (box.samples - 1) * inner + box.inner - 1;
  const [from, to] = [first, last].map((position) => Math.floor(position / share));
  const { range, at } = window(slot, from * size, (to + 1) * size, size, limits);
  ranges.weights = range;
  values.weights = [at, inner, first % share, share];
}

/** Binds the records of a box's channels. */
function bind(
  arrays: Launch<unknown>["arrays"],
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
