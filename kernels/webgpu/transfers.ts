/**
 * The ways between host and device: arrays up and down, statistics and gradient sums to the wire and back.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import type { ArrayInfo } from "../../lib/tensor.ts";
import { HEADER, mergedSumsKernel } from "../wgsl/gradient_sums.ts";
import { mergedMomentsKernel } from "../wgsl/statistics.ts";
import type { Tile } from "../wgsl/tiles.ts";
import {
  bytesOf,
  type Elements,
  type Moments,
  padded,
  type Slot,
  type Sums,
  type WebGpuArray,
} from "./arrays.ts";
import { USAGE } from "./memory.ts";
import type { Range } from "./programs.ts";
import type { Bench, Operate, Tiled } from "./workbench.ts";

/** Operations between host and device. */
export type Transfers = Pick<
  Device<WebGpuArray>,
  | "upload"
  | "download"
  | "downloadAll"
  | "momentsToWire"
  | "momentsFromWire"
  | "sumsToWire"
  | "sumsFromWire"
>;

/** Float32 of a channel's moments, and of its gradient sums in one slice. */
const MOMENTS = 4;
const SUMS = 2 * (HEADER + 1);

/** Makes the operations between host and device. */
export function transfers(operate: Operate): Transfers {
  const collect = (arrays: readonly WebGpuArray[]): Promise<Float32Array<ArrayBuffer>> =>
    reading(operate, async ({ elements, limits, recorder, settled }) => {
      const parts = arrays.map(elements).filter(({ contents }) => contents.length > 0).map(located);
      if (parts.length === 0) await settled();
      const reads = portions(parts, limits.bindingBytes).map((portion) => ({
        portion,
        bytes: recorder.readBack(...portion.map(({ range }) => range)),
      }));
      const all = new Float32Array(parts.reduce((total, { length }) => total + length, 0));
      let to = 0;
      for (const { portion, bytes } of reads) {
        const buffer = await bytes;
        let from = 0;
        for (const { range, at, length, dtype } of portion) {
          const stored = dtype === "float32" ? Float32Array : Float16Array;
          all.set(new stored(buffer, from + at, length), to);
          from += range.size;
          to += length;
        }
      }
      return all;
    });

  return Object.freeze<Transfers>({
    upload: (values, dtype = "float32") =>
      operate(({ fill }) => {
        const bytes = bytesOf(dtype);
        return fill({ kind: "elements", length: values.length, dtype }, () => {
          // What is written is a multiple of 4 bytes.
          const length = padded(values.length * bytes) / bytes;
          const stored = dtype === "float16" ? new Float16Array(length) : new Float32Array(length);
          stored.set(values);
          return stored;
        });
      }),
    download: (array) => collect([array]),
    downloadAll: collect,

    momentsToWire: (array) => reading(operate, (bench) => readMoments(bench, bench.moments(array))),
    momentsFromWire: (wire) =>
      operate(({ fill }) => {
        const channels = (wire.length - 1) / 2;
        const [count] = wire;
        return fill({ kind: "moments", channels, slices: 1, count }, () => {
          const records = new Float32Array(MOMENTS * channels);
          for (let c = 0; c < channels; c++) {
            const mean = Math.fround(wire[1 + c]);
            // An infinite mean is short of nothing.
            const short = Number.isFinite(mean) ? wire[1 + c] - mean : 0;
            records.set([mean, short, wire[1 + channels + c], count], MOMENTS * c);
          }
          return records;
        });
      }),
    sumsToWire: (array) => reading(operate, (bench) => readSums(bench, bench.sums(array))),
    sumsFromWire: (wire) =>
      operate(({ fill }) => {
        const channels = wire.length / 2;
        const contents = { kind: "sums", channels, slices: 1, empty: false } as const;
        return fill({ ...contents, statistics: [] }, () => {
          const records = new Float32Array(SUMS * channels);
          for (let c = 0; c < channels; c++) {
            records.set([wire[c], wire[channels + c]], SUMS * c + 2 * HEADER);
          }
          return records;
        });
      }),
  });
}

/** Operates, and reads back: what throws rejects; what nobody awaits crashes nobody. */
export function reading<T>(operate: Operate, body: (bench: Bench) => Promise<T>): Promise<T> {
  const result = new Promise<T>((resolve) => resolve(operate(body)));
  result.catch(() => {});
  return result;
}

/** Reads moments, or those of some channels, as their wire. */
export async function readMoments(
  bench: Bench,
  slot: Slot<Moments>,
): Promise<Float64Array<ArrayBuffer>> {
  const { channels, count, slices } = slot.contents;
  const wire = new Float64Array(1 + 2 * channels);
  wire[0] = count;
  if (count === 0 || channels === 0) {
    await bench.settled();
    return wire;
  }
  const merger = (tile: Tile) => bench.kernel(mergedMomentsKernel, tile);
  const records = await readMerged(bench, slot, merger, "moments", {
    zero: 0,
    momentsSlices: slices,
  });
  for (let c = 0; c < channels; c++) {
    const [mean, short, m2] = records.subarray(MOMENTS * c);
    wire[1 + c] = mean + short;
    wire[1 + channels + c] = m2;
  }
  return wire;
}

/** Reads gradient sums, or those of some channels, as their wire. */
export async function readSums(
  bench: Bench,
  slot: Slot<Sums>,
): Promise<Float64Array<ArrayBuffer>> {
  const { channels, slices, empty } = slot.contents;
  const wire = new Float64Array(2 * channels);
  if (empty || channels === 0) {
    await bench.settled();
    return wire;
  }
  const merger = (tile: Tile) => bench.kernel(mergedSumsKernel, tile);
  const records = await readMerged(bench, slot, merger, "local", { localSlices: slices });
  for (let c = 0; c < channels; c++) {
    const [sumDy, sumDyXmu] = records.subarray(SUMS * c + 2 * HEADER);
    wire[c] = sumDy;
    wire[channels + c] = sumDyXmu;
  }
  return wire;
}

/** Reads the records of a slot, merged into one slice each where they have several. */
async function readMerged(
  { room, overChannels, recorder, free }: Bench,
  slot: Slot<Moments | Sums>,
  merger: Tiled,
  name: "moments" | "local",
  parameters: Readonly<Record<string, number>>,
): Promise<Float32Array<ArrayBuffer>> {
  const { channels, slices } = slot.contents;
  const [scratch, merged] = slices > 1 ? room({ ...slot.contents, slices: 1 }) : [null, slot];
  if (scratch) overChannels(merger, channels, { [name]: slot, merged }, parameters);
  const bytes = recorder.readBack(merged);
  if (scratch) free(scratch);
  return new Float32Array(await bytes);
}

/** A wrapped buffer may be one that cannot be copied from. */
function checkReadable({ usage }: GPUBuffer): void {
  if ((usage & USAGE.copySource) !== 0) return;
  throw new TypeError(
    "Cannot read the array back as the usage of its wrapped buffer must include " +
      `GPUBufferUsage.COPY_SRC: current usage is 0x${usage.toString(16)}`,
  );
}

/** Elements of an array as they can be copied: from offset and in size multiples of 4. */
interface Part extends ArrayInfo {
  readonly range: Range;
  /** Where the wanted bytes begin in the range. */
  readonly at: number;
}

function located({ block, offset, contents: { length, dtype } }: Slot<Elements>): Part {
  checkReadable(block.buffer);
  const start = Math.floor(offset / 4) * 4;
  const size = padded(offset + length * bytesOf(dtype) - start);
  return { length, dtype, range: { block, offset: start, size }, at: offset - start };
}

/** Cuts a list so that the ranges of a portion are no more than so many bytes together; one alone may be more. */
function portions(parts: readonly Part[], most: number): readonly (readonly Part[])[] {
  const all: Part[][] = [];
  let bytes = Infinity;
  for (const part of parts) {
    bytes += part.range.size;
    if (bytes > most) {
      all.push([]);
      bytes = part.range.size;
    }
    all[all.length - 1].push(part);
  }
  return all;
}
