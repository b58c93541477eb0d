/** Elements to the device, back to the host, and added: what needs no statistics. */

import type { Device } from "../../lib/device.ts";
import { type ArrayInfo, elements as elementsIn } from "../../lib/tensor.ts";
import { bytesOf, type Elements, padded, type Slot, type WebGpuArray } from "./arrays.ts";
import { addScaledKernel } from "../wgsl/add_scaled.ts";
import { copyKernel } from "../wgsl/copy.ts";
import { type Context, fill, type Operate, own, room, settled } from "./context.ts";
import { inputOf } from "./given.ts";
import { USAGE } from "./memory.ts";
import type { Range } from "./programs.ts";
import { walk } from "./walks.ts";

/** Operations on elements. */
export type ElementOperations = Pick<
  Device<WebGpuArray>,
  "upload" | "download" | "downloadAll" | "addScaled" | "arrange"
>;

/** Makes the operations on elements. */
export function elementOperations(operate: Operate): ElementOperations {
  const collect = (arrays: readonly WebGpuArray[]): Promise<Float32Array<ArrayBuffer>> =>
    reading(operate, async (context) => {
      const { recorder, limits } = context;
      const slots = arrays.map((array) => context.arrays.slot(array, recorder.batch, "elements"));
      const wanted = slots.filter(({ contents }) => contents.length > 0).map(located);
      if (wanted.length === 0) await settled(context);
      const reads = portions(wanted, limits.bindingBytes).map((portion) => ({
        portion,
        bytes: recorder.readBack(...portion.map(({ range }) => range)),
      }));
      const all = new Float32Array(wanted.reduce((total, { length }) => total + length, 0));
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

  return {
    upload: (values, dtype = "float32") =>
      operate((context) => {
        const bytes = bytesOf(dtype);
        return fill(context, { kind: "elements", length: values.length, dtype }, () => {
          // What is written is a multiple of 4 bytes.
          const length = padded(values.length * bytes) / bytes;
          const stored = dtype === "float16" ? new Float16Array(length) : new Float32Array(length);
          stored.set(values);
          return stored;
        });
      }),
    download: (array) => collect([array]),
    downloadAll: collect,
    addScaled: ({ x, y, scale }) =>
      operate((context) => {
        const { arrays, recorder: { batch } } = context;
        const augend = arrays.slot(x, batch, "elements");
        const { length, dtype } = augend.contents;
        const addend = arrays.slot(y, batch, "elements", length);
        const [array, sum] = room(context, augend.contents);
        if (length === 0) return array;
        const row = (slot: Slot<Elements>) => ({ slot, format: "channelsFirst" }) as const;
        const over = walk(context, {
          shape: [1, 1, length],
          tensors: { x: row(augend), y: row(addend), sum: row(sum) },
          beside: {},
        });
        over.launch({
          kernel: addScaledKernel,
          options: { x: dtype, y: addend.contents.dtype },
          arrays: {},
          slices: over.slices(1),
          parameters: { scale },
        });
        return array;
      }),
    arrange: ({ parts }) =>
      operate((context) => {
        const { shape: [, ...sample], dtype } = parts[0].input;
        const each = elementsIn(sample);
        const ranges = parts.map(({ input, from, to }) =>
          within(inputOf(context, input).slot, from * each, to * each)
        );
        if (parts.length === 1) return own(context, ranges[0], ranges[0].contents)[0];
        const length = ranges.reduce((sum, { contents }) => sum + contents.length, 0);
        const [array, whole] = room(context, { kind: "elements", length, dtype });
        let at = 0;
        for (const range of ranges) {
          const { contents: { length } } = range;
          if (length === 0) continue;
          const row = (slot: Slot<Elements>) => ({ slot, format: "channelsFirst" }) as const;
          const over = walk(context, {
            shape: [1, 1, length],
            tensors: { x: row(range), y: row(within(whole, at, at += length)) },
            beside: {},
          });
          over.launch({
            ...{ kernel: copyKernel, options: { dtype }, arrays: {} },
            slices: over.slices(1),
          });
        }
        return array;
      }),
  };
}

/** Elements [from, to) of an array where they lie. */
function within(slot: Slot<Elements>, from: number, to: number): Slot<Elements> {
  const [offset, size] = [from, to - from].map((count) => count * bytesOf(slot.contents.dtype));
  const contents = { ...slot.contents, length: to - from };
  return { ...slot, offset: slot.offset + offset, size, contents };
}

/** Operates, and reads back: what throws rejects; what nobody awaits crashes nobody. */
export function reading<T>(operate: Operate, body: (context: Context) => Promise<T>): Promise<T> {
  const result = new Promise<T>((resolve) => resolve(operate(body)));
  result.catch(() => {});
  return result;
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
interface Copied extends ArrayInfo {
  readonly range: Range;
  /** Where the wanted bytes begin in the range. */
  readonly at: number;
}

function located({ block, offset, contents: { length, dtype } }: Slot<Elements>): Copied {
  checkReadable(block.buffer);
  const start = Math.floor(offset / 4) * 4;
  const size = padded(offset + length * bytesOf(dtype) - start);
  return { length, dtype, range: { block, offset: start, size }, at: offset - start };
}

/** Cuts a list so that the ranges of a portion are no more than so many bytes together; one alone may be more. */
function portions(copies: readonly Copied[], most: number): readonly (readonly Copied[])[] {
  const all: Copied[][] = [];
  let bytes = Infinity;
  for (const copy of copies) {
    bytes += copy.range.size;
    if (bytes > most) {
      all.push([]);
      bytes = copy.range.size;
    }
    all[all.length - 1].push(copy);
  }
  return all;
}
