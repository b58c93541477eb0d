/**
 * Statistics to the wire and back, and merged.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import { shown } from "../../lib/words.ts";
import type { MergedOptions } from "../wgsl/fold.ts";
import { mergedSumsKernel } from "../wgsl/gradient_sums.ts";
import type { Kernel } from "../wgsl/kernel.ts";
import { mergedMomentsKernel } from "../wgsl/statistics.ts";
import {
  type Moments,
  recordBytes,
  type Slot,
  type StatisticKind,
  STATISTICS,
  type Sums,
  type WebGpuArray,
} from "./arrays.ts";
import { type Context, fill, type Operate, room, settled } from "./context.ts";
import { statistic } from "./given.ts";
import { reading } from "./transfers.ts";
import { overChannels } from "./walks.ts";

/** Operations on statistics. */
export type Wires = Pick<Device<WebGpuArray>, "toWire" | "fromWire" | "merge">;

type Statistic = Moments | Sums;

/** What is a statistic's own of merging, reading and writing it. */
interface Codec<C extends Statistic> {
  readonly merged: (options: MergedOptions) => Kernel;
  /** What an array of one slice holds that a wire of so many channels becomes. */
  readonly contents: (channels: number, wire: Float64Array) => C;
  /** What an array of one slice holds that two become; throws where they cannot. */
  readonly union: (a: C, b: C) => C;
  /** Numbers of a channel in a wire, as a slice has them. */
  readonly encode: (wire: Float64Array, channels: number, c: number) => readonly number[];
  /** Writes a channel's slice into a wire. */
  readonly decode: (slice: Float32Array, contents: C, c: number, wire: Float64Array) => void;
}

const moments: Codec<Moments> = {
  merged: mergedMomentsKernel,
  contents: (channels, [count]) => ({
    ...{ kind: "moments", channels, slices: 1, count, empty: count === 0 },
  }),
  union: (a, b) => ({
    ...{ ...a, slices: 1, count: a.count + b.count, empty: a.empty && b.empty },
  }),
  encode: (wire, channels, c) => {
    const mean = Math.fround(wire[1 + c]);
    // An infinite mean has no low part.
    const meanLow = Number.isFinite(mean) ? wire[1 + c] - mean : 0;
    return [mean, meanLow, wire[1 + channels + c], wire[0]];
  },
  decode: ([mean, meanLow, m2], { channels, count }, c, wire) => {
    wire[0] = count;
    wire[1 + c] = mean + meanLow;
    wire[1 + channels + c] = m2;
  },
};

const sums: Codec<Sums> = {
  merged: mergedSumsKernel,
  contents: (channels) => ({
    ...{ kind: "gradient sums", channels, slices: 1, empty: false, statistics: [] },
  }),
  union: (a, b) => {
    const { statistics } = a;
    if (
      statistics.length === b.statistics.length && statistics.every((s, i) => s === b.statistics[i])
    ) {
      return { ...a, slices: 1, empty: a.empty && b.empty };
    }
    throw new TypeError(
      "Cannot merge the gradient sums as both must be made with the same statistics, or both come from a wire",
    );
  },
  encode: (wire, channels, c) => [wire[c], wire[channels + c]],
  decode: ([sumDy, sumDyXmu], { channels }, c, wire) => {
    wire[c] = sumDy;
    wire[channels + c] = sumDyXmu;
  },
};

const CODECS: Readonly<Record<StatisticKind, Codec<Statistic>>> = {
  "moments": moments as Codec<Statistic>,
  "gradient sums": sums as Codec<Statistic>,
};

/** Makes the operations on statistics. */
export function wireOperations(operate: Operate): Wires {
  return {
    toWire: (array) => reading(operate, (context) => readWire(context, statistic(context, array))),
    fromWire: ({ name }, wire) =>
      operate((context) => {
        const channels = channelsOf(name, wire);
        const { contents, encode } = CODECS[name];
        const record = recordBytes(name, 1) / 4;
        return fill(context, contents(channels, wire), () => {
          const records = new Float32Array(record * channels);
          for (let c = 0; c < channels; c++) {
            const numbers = encode(wire, channels, c);
            records.set(numbers, record * (c + 1) - numbers.length);
          }
          return records;
        });
      }),
    merge: (a, b) =>
      operate((context) => {
        const one = statistic(context, a);
        const { kind, channels, empty } = one.contents;
        const other = statistic(context, b, kind, channels);
        const { union, merged: kernel } = CODECS[kind];
        const [array, merged] = room(context, union(one.contents, other.contents));
        // An empty batch's sums have no statistics before them.
        const both = empty ? { one: other, other: one } : { one, other };
        overChannels(context, channels, {
          ...{ kernel, options: { two: true } },
          arrays: { ...both, merged },
        });
        return array;
      }),
  };
}

/** Reads a statistic as its wire, merged into one slice where it has several. */
async function readWire(
  context: Context,
  slot: Slot<Statistic>,
): Promise<Float64Array<ArrayBuffer>> {
  const { kind, channels, slices, empty } = slot.contents;
  const { merged: kernel, decode } = CODECS[kind];
  const wire = new Float64Array(STATISTICS[kind].format.length(channels));
  if (empty || channels === 0) {
    await settled(context);
    return wire;
  }
  const [scratch, merged] = slices > 1
    ? room(context, { ...slot.contents, slices: 1 })
    : [null, slot];
  if (scratch) {
    overChannels(context, channels, {
      ...{ kernel, options: { two: false } },
      arrays: { one: slot, merged },
    });
  }
  const bytes = context.recorder.readBack(merged);
  if (scratch) context.arrays.free(scratch);
  const records = new Float32Array(await bytes);
  const { folded } = STATISTICS[kind];
  const numbers = Object.keys(folded.fields).length;
  for (let c = 0; c < channels; c++) {
    const at = numbers * ((folded.header + 1) * c + folded.header);
    decode(records.subarray(at, at + numbers), slot.contents, c, wire);
  }
  return wire;
}

/** Channels of a wire. */
function channelsOf(kind: StatisticKind, wire: Float64Array): number {
  const format = STATISTICS[kind]?.format;
  if (format === undefined) {
    throw new TypeError(
      `Cannot make statistics of a wire as its format must be moments or gradient sums: ` +
        `current value is ${shown(kind)}`,
    );
  }
  const none = format.length(0);
  const channels = (wire.length - none) / (format.length(1) - none);
  if (Number.isSafeInteger(channels) && channels >= 0) return channels;
  throw new TypeError(
    `Cannot make ${kind} of a wire as it must be as long as that of some number of channels: ` +
      `current length is ${wire.length}`,
  );
}
