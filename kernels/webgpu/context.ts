/**
 * What every operation works with: arrays that are checked as they are looked up, room for new ones, kernels launched over
 * tensors or over channels.
 *
 * This is the one place where arrays are checked, against the pass that they are given to, before a kernel gets them.
 *
 * @module
 */

import type { Statistics } from "../../lib/device.ts";
import { checkLayout, elements, type Tensor } from "../../lib/tensor.ts";
import type { MaskLayout } from "../wgsl/mask.ts";
import type { Source } from "../wgsl/statistics.ts";
import {
  type Arrays,
  bytesPerChannel,
  type Contents,
  type ContentsOf,
  type Elements,
  float16Missing,
  type Kind,
  type Mask,
  padded,
  type Slot,
  type StatisticKind,
  STATISTICS,
  type WebGpuArray,
} from "./arrays.ts";
import type { Failures } from "./failures.ts";
import type { Recorder } from "./launches.ts";
import type { Memory } from "./memory.ts";
import type { Limits } from "./plan.ts";
import type { Kernels, Range } from "./programs.ts";
import { type Laid, type Launch, overChannels, type Walk, walk, type WalkOver } from "./walks.ts";

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

/** Runs an operation in a context of its own; what it has made is freed if it throws. */
export type Operate = <T>(body: (context: Context) => T) => T;

/** Statistics as the kernels take them. */
export interface StatisticsSlots {
  readonly source: Source;
  /** The arrays that they are, and the same by the kernels' names. */
  readonly handles: readonly A[];
  readonly slots: Readonly<Record<string, Slot>>;
  readonly slices: number;
}

/** Where one operation works. What looks an array up throws where it is none of the device, or not as it must be. */
export interface Context {
  readonly recorder: Recorder;
  readonly limits: Limits;
  /** Makes a kernel by its function and options, each once. */
  readonly kernel: Kernels;
  /** Waits for what the GPU may report so far; rejects where it has failed. */
  readonly settled: () => Promise<void>;
  /** A tensor that a pass is over. */
  readonly input: (tensor: Tensor<A>) => Laid;
  /** A tensor of the shape and dtype of another. */
  readonly like: (input: Tensor<A>, tensor: Tensor<A>) => Laid;
  readonly likeOrNull: (input: Tensor<A>, tensor: Tensor<A> | undefined) => Laid | null;
  readonly vector: (array: A, channels: number) => Slot<Elements>;
  readonly vectorOrNull: (array: A | null, channels: number) => Slot<Elements> | null;
  /** Elements of any length and storage, or of a certain length. */
  readonly elements: (array: A, length?: number) => Slot<Elements>;
  /** A statistic of one kind or either, and of so many channels or any number. */
  readonly statistic: <K extends StatisticKind = StatisticKind>(
    array: A,
    kind?: K,
    channels?: number,
  ) => Slot<ContentsOf<K>>;
  readonly statistics: (statistics: Statistics<A>, channels: number) => StatisticsSlots;
  /** Room for the mask of an output. */
  readonly roomForMask: (output: Tensor<A>, layout: MaskLayout) => Mask;
  /** Room for an array; its contents come with what is launched. */
  readonly room: <C extends Contents>(contents: C) => [A, Slot<C>];
  /** Two vectors in one block, so that one binding reaches both. */
  readonly pair: (channels: number) => Pair;
  /** An array with contents from the host, which are made once there is room for them. */
  readonly fill: (contents: Contents, make: () => ArrayBufferView<ArrayBuffer>) => A;
  /** Plans a walk over tensors. */
  readonly walk: (over: WalkOver) => Walk;
  /** Launches a kernel that walks no tensor. */
  readonly overChannels: (channels: number, launch: Launch) => void;
  readonly free: (...arrays: A[]) => void;
}

/** Two vectors in one block. */
export interface Pair {
  readonly first: [A, Slot<Elements>];
  readonly second: [A, Slot<Elements>];
  /** Both, and elements from the first's beginning to the second's. */
  readonly range: Range;
  readonly stride: number;
}

/** Makes what runs operations. */
export function operateOn(machine: Machine): Operate {
  const { record, arrays } = machine;
  return (body) => {
    const made: A[] = [];
    try {
      return record((recorder) => body(contextOf(machine, recorder, made)));
    } catch (error) {
      arrays.free(...made.filter(arrays.owns));
      throw error;
    }
  };
}

function contextOf(machine: Machine, recorder: Recorder, made: A[]): Context {
  const { gpuDevice, memory, arrays, failures, kernels, limits, float16 } = machine;
  const { batch } = recorder;
  const own = <C extends Contents>(range: Range, contents: C): [A, Slot<C>] => {
    const array = arrays.own(range, contents, batch);
    made.push(array);
    return [array, { ...range, contents, batch }];
  };
  const room = <C extends Contents>(contents: C): [A, Slot<C>] => {
    if (contents.kind === "elements" && contents.dtype === "float16" && !float16) {
      throw float16Missing();
    }
    const records = contents.kind === "elements" ? contents.length : contents.channels;
    const size = records * bytesPerChannel(contents);
    return own({ block: memory.allocate(padded(size), "storage"), offset: 0, size }, contents);
  };
  const laid = ({ data, shape, dtype, format }: Tensor<A>): Laid => ({
    slot: arrays.slot(data, batch, "elements", elements(shape), dtype),
    format,
  });
  const like = (input: Tensor<A>, tensor: Tensor<A>): Laid => {
    const { shape, dtype } = tensor;
    if (dtype !== input.dtype || !sameShape(shape, input.shape)) {
      throw new TypeError(
        `Cannot launch the pass as its tensors must be alike: current ones are ` +
          `(${input.shape.join(", ")}) ${input.dtype} and (${shape.join(", ")}) ${dtype}`,
      );
    }
    return laid(tensor);
  };
  const vector = (array: A, channels: number) =>
    arrays.slot(array, batch, "elements", channels, "float32");
  const statistic: Context["statistic"] = <K extends StatisticKind>(
    array: A,
    kind = statisticKind(arrays.kindOf(array)) as K,
    channels?: number,
  ) => {
    const length = channels === undefined ? undefined : STATISTICS[kind].format.length(channels);
    return arrays.slot(array, batch, kind, length);
  };

  return {
    recorder,
    limits,
    kernel: kernels,
    settled: async () => {
      await failures.reported();
      failures.check();
    },
    input: (tensor) => {
      checkLayout(tensor, "launch the pass", "input");
      return laid(tensor);
    },
    like,
    likeOrNull: (input, tensor) => tensor ? like(input, tensor) : null,
    vector,
    vectorOrNull: (array, channels) => array && vector(array, channels),
    elements: (array, length) => arrays.slot(array, batch, "elements", length),
    statistic,
    statistics: (statistics, channels) => {
      if (statistics.source === "running") {
        const { mean, variance } = statistics;
        const slots = { mean: vector(mean, channels), variance: vector(variance, channels) };
        return { source: "running", handles: [mean, variance], slots, slices: 1 };
      }
      const slot = statistic(statistics.moments, "moments", channels);
      const { slices } = slot.contents;
      return { source: "batch", handles: [statistics.moments], slots: { moments: slot }, slices };
    },
    roomForMask: ({ data, shape, format }, layout) => {
      const block = memory.allocate(layout.bytes, "storage");
      const range = { block, offset: 0, size: layout.bytes };
      const mask = { ...layout, range, shape: [...shape], format };
      arrays.attach(data, mask);
      return mask;
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
    walk: (over) => walk(recorder, limits, over),
    overChannels: (channels, launch) => overChannels(recorder, limits, channels, launch),
    free: arrays.free,
  };
}

/** Whether two shapes are one. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a === b || (a.length === b.length && a.every((extent, i) => extent === b[i]));
}

function statisticKind(kind: Kind): StatisticKind {
  if (kind !== "elements") return kind;
  throw new TypeError(
    "Cannot use the array as statistics: it holds the elements of a tensor or a vector",
  );
}
