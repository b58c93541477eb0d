/** Statistics to the wire and back, and merged. */

import type { Device } from "../../lib/device.ts";
import { countOf, momentsWire } from "../../lib/wire.ts";
import { shown } from "../../lib/words.ts";
import { elementWidth } from "../wgsl/fold.ts";
import { FOLDED, mergedKernel } from "../wgsl/merged.ts";
import { UNCOUNTABLE } from "../wgsl/moments_algebra.ts";
import {
  recordBytes,
  type Slot,
  type Statistic,
  type StatisticKind,
  type WebGpuArray,
  WIRES,
} from "./arrays.ts";
import { type Context, fill, type Operate, room, settled } from "./context.ts";
import { reading } from "./elements.ts";
import { sameItems, statistic } from "./given.ts";
import { overChannels } from "./walks.ts";

/** Operations on statistics. */
export type Wires = Pick<Device<WebGpuArray>, "toWire" | "fromWire" | "merge">;

/** How the numbers of a channel stand in a wire. */
interface Codec {
  /** A channel's numbers as a slice has them. */
  readonly encode: (wire: Float64Array, channels: number, c: number) => readonly number[];
  /** The same back, where the wire has them. */
  readonly decode: (
    slice: Float32Array,
    { channels, count }: Statistic,
    c: number,
    wire: Float64Array,
  ) => void;
}

const CODECS: Readonly<Record<StatisticKind, Codec>> = {
  "moments": {
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
  },
  // The count of one weight alone is negated: there is no room for how many there are.
  "weighted moments": {
    encode: (wire, channels, c) => {
      const [mean, meanLow, m2, count] = CODECS.moments.encode(wire.subarray(1), channels, c);
      return [mean, meanLow, m2, wire[0] === 1 ? -count : count];
    },
    decode: (slice, statistic, c, wire) => {
      const [, , , weight] = slice;
      // A sum that nobody can count by, which need not have overflowed.
      const count = Math.abs(weight) < UNCOUNTABLE ? Math.abs(weight) : Infinity;
      wire[0] = weight < 0 ? 1 : weight > 0 ? 2 : 0;
      CODECS.moments.decode(slice, { ...statistic, count }, c, wire.subarray(1));
    },
  },
  "gradient sums": {
    encode: (wire, channels, c) => [wire[c], wire[channels + c]],
    decode: ([sumDy, sumDyXmu], { channels }, c, wire) => {
      wire[c] = sumDy;
      wire[channels + c] = sumDyXmu;
    },
  },
};

/** Makes the operations on statistics. */
export function wireOperations(operate: Operate): Wires {
  return {
    toWire: (array) => reading(operate, (context) => readWire(context, statistic(context, array))),
    fromWire: ({ name: kind }, wire) =>
      operate((context) => {
        const channels = channelsOf(kind, wire);
        const count = kind === momentsWire.name ? countOf(wire) : NaN;
        return fill(context, { kind, channels, slices: 1, count, statistics: [] }, () => {
          const record = recordBytes(kind, 1) / 4;
          const records = new Float32Array(record * channels);
          for (let c = 0; c < channels; c++) {
            const numbers = CODECS[kind].encode(wire, channels, c);
            records.set(numbers, record * (c + 1) - numbers.length);
          }
          return records;
        });
      }),
    merge: (a, b) =>
      operate((context) => {
        const one = statistic(context, a);
        const { kind, channels, count, statistics } = one.contents;
        const other = statistic(context, b, kind, channels);
        if (!sameItems(statistics, other.contents.statistics)) {
          throw new TypeError(
            "Cannot merge the gradient sums as both must be made with the same statistics, or both " +
              "come from a wire",
          );
        }
        const total = count + other.contents.count;
        const [array, merged] = room(context, { ...one.contents, slices: 1, count: total });
        overChannels(context, channels, {
          ...{ kernel: mergedKernel, options: { statistic: foldedAs(kind), two: true } },
          // An empty batch's sums have no statistics before them.
          arrays: count === 0 ? { one: other, other: one, merged } : { one, other, merged },
        });
        return array;
      }),
  };
}

/** Weighted moments are merged as others are, by the same shader. */
function foldedAs(kind: StatisticKind): Exclude<StatisticKind, "weighted moments"> {
  return kind === "weighted moments" ? "moments" : kind;
}

/** Reads a statistic as its wire, merged into one slice where it has several. */
async function readWire(
  context: Context,
  slot: Slot<Statistic>,
): Promise<Float64Array<ArrayBuffer>> {
  const { kind, channels, slices, count } = slot.contents;
  const wire = new Float64Array(WIRES[kind].length(channels));
  if (count === 0 || channels === 0) {
    await settled(context);
    return wire;
  }
  const [scratch, merged] = slices > 1
    ? room(context, { ...slot.contents, slices: 1 })
    : [null, slot];
  if (scratch) {
    overChannels(context, channels, {
      ...{ kernel: mergedKernel, options: { statistic: foldedAs(kind), two: false } },
      arrays: { one: slot, merged },
    });
  }
  const bytes = context.recorder.readBack(merged);
  if (scratch) context.arrays.free(scratch);
  const records = new Float32Array(await bytes);
  const [record, width] = [recordBytes(kind, 1) / 4, elementWidth(FOLDED[kind])];
  for (let c = 0; c < channels; c++) {
    const end = record * (c + 1);
    CODECS[kind].decode(records.subarray(end - width, end), slot.contents, c, wire);
  }
  return wire;
}

/** Channels of a wire. */
function channelsOf(kind: StatisticKind, wire: Float64Array): number {
  const length = WIRES[kind]?.length;
  if (length === undefined) {
    throw new TypeError(
      `Cannot make statistics of a wire as its format must be moments or gradient sums: ` +
        `current value is ${shown(kind)}`,
    );
  }
  const channels = (wire.length - length(0)) / (length(1) - length(0));
  if (Number.isSafeInteger(channels) && channels >= 0) return channels;
  throw new TypeError(
    `Cannot make ${kind} of a wire as it must be as long as that of some number of channels: ` +
      `current length is ${wire.length}`,
  );
}
