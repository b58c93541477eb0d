/** Arrays of a device: opaque handles, and what stands behind them. */

import { DeviceError } from "../../lib/errors.ts";
import type { ArrayInfo, DType, Format } from "../../lib/tensor.ts";
import { momentsWire, sumsWire, weightedMomentsWire, type WireFormat } from "../../lib/wire.ts";
import { elementWidth } from "../wgsl/fold.ts";
import type { MaskLayout } from "../wgsl/mask.ts";
import { FOLDED } from "../wgsl/merged.ts";
import type { Batch } from "./launches.ts";
import { type Memory, USAGE } from "./memory.ts";
import type { Range } from "./programs.ts";

/** Where an array lies: what a bind group of your own takes. */
export interface GpuBinding {
  /** The buffer; others' arrays may lie in it too. */
  readonly buffer: GPUBuffer;
  /** First byte. */
  readonly offset: number;
  /** Number of bytes, a multiple of 4: after an odd number of float16 stand two that mean nothing. */
  readonly size: number;
}

/** An array of a WebGPU device. Opaque: read it with the device's `download`, or bind it by `unwrap`. */
export interface WebGpuArray {
  /** Sets it apart from the arrays of other kinds of device, for the type checker. */
  readonly device: "webgpu";
  /** Where it lies, as long as it is alive; see `unwrap`. */
  readonly binding: () => GpuBinding;
}

/** Elements of a tensor or a vector. */
export interface Elements {
  readonly kind: "elements";
  readonly length: number;
  readonly dtype: DType;
}

/** Moments or gradient sums of a batch, in slices. */
export interface Statistic<K extends StatisticKind = StatisticKind> {
  readonly kind: K;
  readonly channels: number;
  readonly slices: number;
  /**
   * Values per channel, exact where a float32 on the device is not; NaN where gradient sums from a wire do not tell, and of
   * weighted moments of anything but an empty batch.
   */
  readonly count: number;
  /** The arrays whose statistics stand before gradient sums; none before those from a wire, and before moments. */
  readonly statistics: readonly WebGpuArray[];
}

/** A kind of statistic, by the name of its wire. */
export type StatisticKind = WireFormat["name"];

/** What an array holds. */
export type Contents = Elements | Statistic;

/** A kind of array. */
export type Kind = Contents["kind"];

/** The contents of a kind. */
export type ContentsOf<K extends Kind> = K extends StatisticKind ? Statistic<K> : Elements;

/** What travels. */
export const WIRES: Readonly<Record<StatisticKind, WireFormat>> = {
  "moments": momentsWire,
  "weighted moments": weightedMomentsWire,
  "gradient sums": sumsWire,
};

/** Where an output is positive, as the kernel that wrote the output found it. */
export interface Mask extends MaskLayout {
  readonly range: Range;
  /** What the output is a tensor of: its bits lie by channels and positions. */
  readonly shape: readonly number[];
  readonly format: Format;
}

/** A live array. */
export interface Slot<C extends Contents = Contents> extends Range {
  readonly contents: C;
  /** Belongs to the array, and goes with it. */
  readonly mask?: Mask;
  /** The batch that makes it; null for what was there before. */
  readonly batch: Batch | null;
}

/** The arrays of one device. */
export interface Arrays {
  /** Makes an array of a range. */
  readonly own: (range: Range, contents: Contents, batch: Batch | null) => WebGpuArray;
  /**
   * Looks an array up for `batch`, which wants to use it. Throws where it is not one of the device, freed, made by a batch
   * that has not been launched, or of another kind; or of another length (as `describe` has it) or storage, where those are
   * given.
   */
  readonly slot: <K extends Kind>(
    array: WebGpuArray,
    batch: Batch | null,
    kind: K,
    length?: number,
    dtype?: DType,
  ) => Slot<ContentsOf<K>>;
  /** The kind of a live array. */
  readonly kindOf: (array: WebGpuArray) => Kind;
  /** Gives an array a mask. */
  readonly attach: (array: WebGpuArray, mask: Mask) => void;
  readonly free: (...arrays: WebGpuArray[]) => void;
  readonly owns: (value: unknown) => value is WebGpuArray;
  readonly describe: (array: WebGpuArray) => ArrayInfo;
}

/** Makes the registry of a device's arrays; `memory` is where their blocks go when the last array in them is freed. */
export function createArrays(memory: Memory): Arrays {
  const live = new WeakMap<WebGpuArray, Slot>();
  const freed = new WeakSet<WebGpuArray>();

  const find = (array: WebGpuArray): Slot => {
    const slot = live.get(array);
    if (slot) return slot;
    throw new TypeError(
      freed.has(array)
        ? "Cannot use the array as it was already freed"
        : "Cannot use the array as it must be one of this device: it is another device's, or none",
    );
  };
  const slot: Arrays["slot"] = <K extends Kind>(
    array: WebGpuArray,
    batch: Batch | null,
    kind: K,
    length?: number,
    dtype?: DType,
  ): Slot<ContentsOf<K>> => {
    const found = find(array);
    const { contents } = found;
    if (contents.kind !== kind) {
      throw new TypeError(
        `Cannot use the array as ${wordsOf(kind)}: it holds ${wordsOf(contents.kind)}`,
      );
    }
    if (length !== undefined && lengthOf(contents) !== length) {
      throw new TypeError(
        `Cannot use the array as it must hold ${length} values: current length is ${
          lengthOf(contents)
        }`,
      );
    }
    if (dtype !== undefined && contents.kind === "elements" && contents.dtype !== dtype) {
      throw new TypeError(
        `Cannot use the array as its elements must be ${dtype}: current dtype is ${contents.dtype}`,
      );
    }
    if (found.batch !== batch && found.batch?.open) {
      throw new TypeError(
        "Cannot use the array as the batch that makes it has not been launched yet: " +
          "use it within that batch through its device, or after it",
      );
    }
    return found as Slot<ContentsOf<K>>;
  };
  return Object.freeze<Arrays>({
    own: ({ block, offset, size }, contents, batch) => {
      const array: WebGpuArray = Object.freeze({
        device: "webgpu",
        binding: () => {
          const { block, offset, size } = slot(array, null, "elements");
          return { buffer: block.buffer, offset, size: padded(size) };
        },
      });
      live.set(array, { block, offset, size, contents, batch });
      block.owners++;
      return array;
    },
    slot,
    kindOf: (array) => find(array).contents.kind,
    attach: (array, mask) => void live.set(array, { ...find(array), mask }),
    free: (...arrays) => {
      arrays.forEach(find);
      for (const array of new Set(arrays)) {
        const { block, mask } = find(array);
        live.delete(array);
        freed.add(array);
        if (mask) memory.release(mask.range.block);
        if (--block.owners === 0) memory.release(block);
      }
    },
    owns: (value): value is WebGpuArray => live.has(value as WebGpuArray),
    describe: (array) => {
      const { contents } = find(array);
      const dtype = contents.kind === "elements" ? contents.dtype : "float32";
      return { length: lengthOf(contents), dtype };
    },
  });
}

function wordsOf(kind: Kind): string {
  return kind === "elements" ? "the elements of a tensor or a vector" : kind;
}

/** Elements; of a statistic as many as its wire has. */
function lengthOf(contents: Contents): number {
  return contents.kind === "elements"
    ? contents.length
    : WIRES[contents.kind].length(contents.channels);
}

/** Bytes of an element. */
export function bytesOf(dtype: DType): number {
  return dtype === "float16" ? 2 : 4;
}

/** Bytes of what an array is made of: elements of a tensor, of the slices of a statistic. */
export function elementBytes(contents: Contents): number {
  return contents.kind === "elements"
    ? bytesOf(contents.dtype)
    : 4 * elementWidth(FOLDED[contents.kind]);
}

/** Bytes of a statistic's record of one channel, in so many slices. */
export function recordBytes(kind: StatisticKind, slices: number): number {
  return 4 * elementWidth(FOLDED[kind]) * (FOLDED[kind].header + slices);
}

/** Bytes of an array's record of one channel. */
export function bytesPerChannel(contents: Contents): number {
  return contents.kind === "elements"
    ? bytesOf(contents.dtype)
    : recordBytes(contents.kind, contents.slices);
}

/** Rounds up to what WebGPU copies and binds. */
export function padded(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}

/**
 * Checks that a part of somebody else's buffer can serve as an array of these elements, and says which part that is. TypeError
 * where the buffer has the wrong usage, RangeError where the part does not fit.
 */
export function checkBinding(
  { buffer, offset = 0, size }: Partial<GpuBinding>,
  { length, dtype }: ArrayInfo,
): { readonly buffer: GPUBuffer; readonly offset: number; readonly size: number } {
  const action = "wrap the buffer";
  if (typeof buffer?.size !== "number" || typeof buffer.usage !== "number") {
    throw new TypeError(`Cannot ${action} as it must be a GPUBuffer: current value is ${buffer}`);
  }
  if ((buffer.usage & USAGE.storage) === 0) {
    throw new TypeError(
      `Cannot ${action} as its usage must include GPUBufferUsage.STORAGE: current usage is 0x${
        buffer.usage.toString(16)
      }`,
    );
  }
  const bytes = bytesOf(dtype);
  const wanted = length * bytes;
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % bytes > 0) {
    throw new RangeError(
      `Cannot ${action} as offset must be a multiple of ${bytes} bytes: current value is ${offset}`,
    );
  }
  // Bindings are multiples of 4 bytes: an odd number of float16 needs the two bytes after it to exist.
  const fits = size === undefined || size === wanted || size === padded(wanted);
  if (!fits || padded(offset + wanted) > buffer.size) {
    throw new RangeError(
      `Cannot ${action} as ${length} ${dtype} are ${padded(wanted)} bytes from offset ${offset} ` +
        `on: current size is ${size ?? buffer.size - offset}, of a buffer of ${buffer.size}`,
    );
  }
  return { buffer, offset, size: wanted };
}

/** Says that a device without shader-f16 has no float16. */
export function float16Missing(): DeviceError {
  return new DeviceError(
    "Cannot make a float16 array as the GPUDevice must have the feature shader-f16 and the runtime " +
      "Float16Array: request a device with it, or use float32",
    "unsupported",
  );
}
