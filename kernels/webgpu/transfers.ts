/**
 * The ways between host and device: arrays up and down, statistics and gradient sums to the wire and back.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import { HEADER, mergedSumsKernel } from "../wgsl/gradient_sums.ts";
import { mergedMomentsKernel } from "../wgsl/statistics.ts";
import { bytesOf, padded, type WebGpuArray } from "./arrays.ts";
import { USAGE } from "./memory.ts";
import type { Range } from "./programs.ts";
import type { Bench, Operate } from "./workbench.ts";

/** Operations between host and device. */
export type Transfers = Pick<
  Device<WebGpuArray>,
  "upload" | "download" | "momentsToWire" | "momentsFromWire" | "sumsToWire" | "sumsFromWire"
>;

/** Float32 of a channel's moments, and of its gradient sums in one slice. */
const MOMENTS = 4;
const SUMS = 2 * (HEADER + 1);

/** Makes the operations between host and device. */
export function transfers(operate: Operate): Transfers {
  /** Operates, and reads back: what throws rejects; what nobody awaits crashes nobody. */
  const reading = <T>(body: (bench: Bench) => Promise<T>): Promise<T> => {
    const result = new Promise<T>((resolve) => resolve(operate(body)));
    result.catch(() => {});
    return result;
  };

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
    download: (array) =>
      reading(async ({ elements, recorder, settled }) => {
        const { contents: { length, dtype }, block, offset } = elements(array);
        if (length === 0) {
          await settled();
          return new Float32Array();
        }
        checkReadable(block.buffer);
        const { range, at } = aligned(block, offset, length * bytesOf(dtype));
        const bytes = await recorder.readBack(range);
        return dtype === "float32"
          ? new Float32Array(bytes, at, length).slice()
          : Float32Array.from(new Float16Array(bytes, at, length));
      }),

    momentsToWire: (array) =>
      reading(async ({ moments, room, kernel, overChannels, recorder, free, settled }) => {
        const slot = moments(array);
        const { channels, count, slices } = slot.contents;
        const wire = new Float64Array(1 + 2 * channels);
        if (count === 0) {
          await settled();
          return wire;
        }
        const [scratch, merged] = slices > 1 ? room({ ...slot.contents, slices: 1 }) : [null, slot];
        if (scratch) {
          const parameters = { zero: 0, momentsSlices: slices };
          const beside = { moments: slot, merged };
          overChannels((tile) => kernel(mergedMomentsKernel, tile), channels, beside, parameters);
        }
        const bytes = recorder.readBack(merged);
        if (scratch) free(scratch);
        const records = new Float32Array(await bytes);
        wire[0] = count;
        for (let c = 0; c < channels; c++) {
          const [mean, short, m2] = records.subarray(MOMENTS * c);
          wire[1 + c] = mean + short;
          wire[1 + channels + c] = m2;
        }
        return wire;
      }),
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
    sumsToWire: (array) =>
      reading(async ({ sums, room, kernel, overChannels, recorder, free, settled }) => {
        const slot = sums(array);
        const { channels, slices, empty } = slot.contents;
        const wire = new Float64Array(2 * channels);
        if (empty) {
          await settled();
          return wire;
        }
        const [scratch, merged] = slices > 1 ? room({ ...slot.contents, slices: 1 }) : [null, slot];
        if (scratch) {
          const parameters = { localSlices: slices };
          const beside = { local: slot, merged };
          overChannels((tile) => kernel(mergedSumsKernel, tile), channels, beside, parameters);
        }
        const bytes = recorder.readBack(merged);
        if (scratch) free(scratch);
        const records = new Float32Array(await bytes);
        for (let c = 0; c < channels; c++) {
          const [sumDy, sumDyXmu] = records.subarray(SUMS * c + 2 * HEADER);
          wire[c] = sumDy;
          wire[channels + c] = sumDyXmu;
        }
        return wire;
      }),
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

/** A wrapped buffer may be one that cannot be copied from. */
function checkReadable({ usage }: GPUBuffer): void {
  if ((usage & USAGE.copySource) !== 0) return;
  throw new TypeError(
    "Cannot read the array back as the usage of its wrapped buffer must include " +
      `GPUBufferUsage.COPY_SRC: current usage is 0x${usage.toString(16)}`,
  );
}

/** A range that can be copied: offset and size are multiples of 4; `at` is where the wanted bytes begin in it. */
function aligned(
  block: Range["block"],
  offset: number,
  size: number,
): { readonly range: Range; readonly at: number } {
  const start = Math.floor(offset / 4) * 4;
  return {
    range: { block, offset: start, size: padded(offset + size - start) },
    at: offset - start,
  };
}
