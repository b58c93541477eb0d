/**
 * What an operation works in: a device's parts, the batch that it launches in, and what it has made, which is freed if it throws.
 */

import { bytesPerChannel, type Contents, type Elements, float16Missing, padded } from "./arrays.ts";
import type { Arrays, Slot, WebGpuArray } from "./arrays.ts";
import type { Failures } from "./failures.ts";
import type { Recorder } from "./launches.ts";
import type { Memory } from "./memory.ts";
import type { Limits } from "./plan.ts";
import type { Kernels, Range } from "./programs.ts";

/** What the operations are made of. */
export interface Machine {
  readonly gpuDevice: GPUDevice;
  readonly memory: Memory;
  readonly arrays: Arrays;
  readonly failures: Failures;
  readonly kernels: Kernels;
  readonly limits: Limits;
  readonly float16: boolean;
  /** Runs a body with the recorder of the open batch, or with one of its own that is launched at its end. */
  readonly record: <T>(body: (recorder: Recorder) => T) => T;
}

/** What one operation works in. */
export interface Context extends Omit<Machine, "record"> {
  readonly recorder: Recorder;
  /** What it has made. */
  readonly made: WebGpuArray[];
}

/** Runs an operation. */
export type Operate = <T>(body: (context: Context) => T) => T;

/** An array, and what stands behind it. */
export type Made<C extends Contents> = readonly [WebGpuArray, Slot<C>];

/** Makes what runs operations. */
export function operateOn({ record, ...machine }: Machine): Operate {
  const { arrays } = machine;
  return (body) => {
    const made: WebGpuArray[] = [];
    try {
      return record((recorder) => body({ ...machine, recorder, made }));
    } catch (error) {
      arrays.free(...made.filter(arrays.owns));
      throw error;
    }
  };
}

/** Waits for what the GPU may report so far; rejects where it has failed. */
export async function settled({ failures }: Context): Promise<void> {
  await failures.reported();
  failures.check();
}

/** Makes an array of a range. */
export function own<C extends Contents>(
  { arrays, recorder: { batch }, made }: Context,
  range: Range,
  contents: C,
): Made<C> {
  const array = arrays.own(range, contents, batch);
  made.push(array);
  return [array, { ...range, contents, batch }];
}

/** Room for an array; its contents come with what is launched. */
export function room<C extends Contents>(context: Context, contents: C): Made<C> {
  const { memory, float16 } = context;
  if (contents.kind === "elements" && contents.dtype === "float16" && !float16) {
    throw float16Missing();
  }
  const records = contents.kind === "elements" ? contents.length : contents.channels;
  const size = records * bytesPerChannel(contents);
  const block = memory.allocate(padded(size), "storage");
  return own(context, { block, offset: 0, size }, contents);
}

/**
 * Two vectors in one block, so that one binding reaches both: `stride` elements from one's beginning to the other's. Where
 * buffers must be exact each has its own, and no range has both.
 */
export function pair(context: Context, channels: number) {
  const { memory, limits } = context;
  const contents: Elements = { kind: "elements", length: channels, dtype: "float32" };
  if (memory.exact) {
    return {
      first: room(context, contents),
      second: room(context, contents),
      range: null,
      stride: 0,
    };
  }
  const size = 4 * channels;
  const row = Math.ceil(size / limits.alignment) * limits.alignment;
  const block = memory.allocate(2 * row, "storage");
  return {
    first: own(context, { block, offset: 0, size }, contents),
    second: own(context, { block, offset: row, size }, contents),
    range: { block, offset: 0, size: row + size },
    stride: row / 4,
  };
}

/** An array with contents from the host, which are made once there is room for them. */
export function fill(
  context: Context,
  contents: Contents,
  make: () => ArrayBufferView<ArrayBuffer>,
): WebGpuArray {
  const { failures, gpuDevice: { queue } } = context;
  const [array, { block: { buffer } }] = room(context, contents);
  const data = make();
  const write = () => queue.writeBuffer(buffer, 0, data);
  // Deno 2.9.6 aborts when there is nothing to write.
  if (data.byteLength > 0) failures.guard("upload an array", ["out-of-memory"], write);
  return array;
}
