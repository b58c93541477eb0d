/**
 * What every operation works with: arrays looked up, room for new ones, kernels launched over tensors or over channels.
 *
 * @module
 */

import type { Statistics } from "../../lib/device.ts";
import type { Format, Tensor } from "../../lib/tensor.ts";
import type { Kernel } from "../wgsl/kernel.ts";
import type { MaskPlan } from "../wgsl/mask.ts";
import type { Source } from "../wgsl/statistics.ts";
import type { Tile } from "../wgsl/tiles.ts";
import {
  type Arrays,
  bytesPerChannel,
  type Contents,
  type Elements,
  float16Missing,
  type Mask,
  type Moments,
  padded,
  type Slot,
  type Sums,
  type WebGpuArray,
} from "./arrays.ts";
import type { Failures } from "./failures.ts";
import type { Recorder } from "./launches.ts";
import type { Memory } from "./memory.ts";
import { channelTile, type Limits, tiling } from "./plan.ts";
import type { Kernels, Range } from "./programs.ts";
import { channelsOf, type Tensors, type Walk, walk } from "./walks.ts";

type A = WebGpuArray;

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

/** Runs an operation at a bench of its own; what it has made is freed if it throws. */
export type Operate = <T>(body: (bench: Bench) => T) => T;

/** A tensor's array and its memory order. */
export interface Part {
  readonly slot: Slot<Elements>;
  readonly format: Format;
}

/** Statistics as the kernels take them. */
export interface Looked {
  readonly source: Source;
  /** The arrays that they are, and the same by the kernels' names. */
  readonly handles: readonly A[];
  readonly slots: Readonly<Record<string, Slot>>;
  readonly slices: number;
}

/** A kernel that is still to be told how workgroups are made up. */
export type Tiled = (tile: Tile) => Kernel;

/** Where one operation works. */
export interface Bench {
  readonly recorder: Recorder;
  readonly limits: Limits;
  /** Makes a kernel by its function and options, each once. */
  readonly kernel: Kernels;
  /** Waits for what the GPU may report so far; rejects where it has failed. */
  readonly settled: () => Promise<void>;
  /** Looks arrays up; each throws where it is not one of the device, freed, or of another kind. */
  readonly elements: (array: A) => Slot<Elements>;
  readonly elementsOrNull: (array: A | null) => Slot<Elements> | null;
  readonly moments: (array: A) => Slot<Moments>;
  readonly sums: (array: A) => Slot<Sums>;
  readonly part: (tensor: Tensor<A>) => Part;
  /** The mask of an output, where forward wrote one for a tensor of this shape and order. */
  readonly maskOf: (output: Tensor<A> | null) => Mask | null;
  /** Room for the mask of an output. */
  readonly roomForMask: (output: Tensor<A>, plan: MaskPlan) => Mask;
  readonly partOrNull: (tensor: Tensor<A> | null) => Part | null;
  readonly look: (statistics: Statistics<A>) => Looked;
  /** Room for an array; its contents come with what is launched. */
  readonly room: <C extends Contents>(contents: C) => [A, Slot<C>];
  /** Two vectors in one block, so that one binding reaches both. */
  readonly pair: (channels: number) => Pair;
  /** An array with contents from the host, which are made once there is room for them. */
  readonly fill: (contents: Contents, make: () => ArrayBufferView<ArrayBuffer>) => A;
  /**
   * Plans a walk over tensors, with arrays per channel beside them; `reread` of the tensors are read by two walks, of which
   * this is one, and should stay in the cache meanwhile.
   */
  readonly plan: (
    shape: readonly number[],
    tensors: Tensors,
    beside: Beside,
    reread?: number,
  ) => Walk;
  /** Launches a kernel that walks no tensor over all channels, in parts that can be bound. */
  readonly overChannels: (
    kernel: Tiled,
    channels: number,
    beside: Readonly<Record<string, Slot>>,
    parameters: Readonly<Record<string, number>>,
  ) => void;
  readonly free: (...arrays: A[]) => void;
}

/** Arrays with a record per channel, by the kernels' names. */
export type Beside = Readonly<Record<string, Slot | null>>;

/** Two vectors in one block. */
export interface Pair {
  readonly first: [A, Slot<Elements>];
  readonly second: [A, Slot<Elements>];
  /** Both, and elements from the first's beginning to the second's. */
  readonly range: Range;
  readonly stride: number;
}

/**
 * Sets a workshop up.
 *
 * @param machine what the operations are made of
 * @returns what runs an operation
 */
export function workshop(machine: Machine): Operate {
  const { record, arrays } = machine;
  return (body) => {
    const made: A[] = [];
    try {
      return record((recorder) => body(benchFor(machine, recorder, made)));
    } catch (error) {
      arrays.free(...made.filter(arrays.owns));
      throw error;
    }
  };
}

function benchFor(machine: Machine, recorder: Recorder, made: A[]): Bench {
  const { gpuDevice, memory, arrays, failures, kernels, limits, float16 } = machine;
  const own = <C extends Contents>(range: Range, contents: C): [A, Slot<C>] => {
    const array = arrays.own(range, contents, recorder.batch);
    made.push(array);
    return [array, { ...range, contents, batch: recorder.batch }];
  };
  const room = <C extends Contents>(contents: C): [A, Slot<C>] => {
    if (contents.kind === "elements" && contents.dtype === "float16" && !float16) {
      throw float16Missing();
    }
    const records = contents.kind === "elements" ? contents.length : contents.channels;
    const size = records * bytesPerChannel(contents);
    return own({ block: memory.allocate(padded(size), "storage"), offset: 0, size }, contents);
  };
  const elements = (array: A) => arrays.slot(array, "elements", recorder.batch);
  const moments = (array: A) => arrays.slot(array, "moments", recorder.batch);
  const part = ({ data, format }: Tensor<A>) => ({ slot: elements(data), format });
  const recordsBound = (slots: readonly (Slot | null)[]): number =>
    Math.max(4, ...slots.map((slot) => slot ? bytesPerChannel(slot.contents) : 0));

  return {
    recorder,
    limits,
    kernel: kernels,
    settled: async () => {
      await failures.reported();
      failures.check();
    },
    elements,
    elementsOrNull: (array) => array && elements(array),
    moments,
    sums: (array) => arrays.slot(array, "sums", recorder.batch),
    part,
    partOrNull: (tensor) => tensor && part(tensor),
    maskOf: (output) => {
      if (output === null) return null;
      const { mask } = elements(output.data);
      const { shape, format } = output;
      const same = mask?.format === format && mask.shape.length === shape.length &&
        mask.shape.every((extent, i) => extent === shape[i]);
      return same ? mask : null;
    },
    roomForMask: ({ data, shape, format }, plan) => {
      const block = memory.allocate(plan.bytes, "storage");
      const range = { block, offset: 0, size: plan.bytes };
      const mask = { ...plan, range, shape: [...shape], format };
      arrays.attach(data, mask);
      return mask;
    },
    look: (statistics) => {
      if (statistics.source === "running") {
        const { mean, variance } = statistics;
        const slots = { mean: elements(mean), variance: elements(variance) };
        return { source: "running", handles: [mean, variance], slots, slices: 1 };
      }
      const slot = moments(statistics.moments);
      const { slices } = slot.contents;
      return { source: "batch", handles: [statistics.moments], slots: { moments: slot }, slices };
    },
    room,
    pair: (channels) => {
      const row = Math.ceil(4 * channels / limits.alignment) * limits.alignment;
      const block = memory.allocate(2 * row, "storage");
      const contents = { kind: "elements", length: channels, dtype: "float32" } as const;
      const size = 4 * channels;
      return {
        first: own({ block, offset: 0, size }, contents),
        second: own({ block, offset: row, size }, contents),
        range: { block, offset: 0, size: row + size },
        stride: row / 4,
      };
    },
    fill: (contents, make) => {
      const [array, { block }] = room(contents);
      const data = make();
      // Deno 2.9.6 aborts when there is nothing to write.
      if (data.byteLength > 0) {
        failures.guard(
          "upload an array",
          ["out-of-memory"],
          () => gpuDevice.queue.writeBuffer(block.buffer, 0, data),
        );
      }
      return array;
    },
    plan: (shape, tensors, beside, reread = 0) =>
      walk(shape, tensors, recordsBound(Object.values(beside)), reread, limits),
    overChannels: (kernel, channels, beside, parameters) => {
      const room = limits.bindingBytes - limits.alignment;
      const most = Math.floor(room / recordsBound(Object.values(beside)));
      const tile = channelTile(limits.choices);
      const made = kernel(tile);
      for (let channel = 0; channel < channels; channel += most) {
        const box = { channel, channels: Math.min(most, channels - channel) };
        const column = { samples: 1, inner: 1, channels: box.channels };
        const { workgroups, parameters: counts } = tiling(column, tile, 1);
        const ranges: Record<string, Range> = {};
        const values: Record<string, number> = { ...counts, ...parameters };
        for (const [name, slot] of Object.entries(beside)) {
          const { range, at } = channelsOf(slot, box, limits);
          ranges[name] = range;
          values[`${name}At`] = at;
        }
        recorder.dispatch(made, ranges, values, workgroups);
      }
    },
    free: arrays.free,
  };
}
