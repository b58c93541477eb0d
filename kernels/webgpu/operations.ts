/**
 * The operations of a device as launches: which kernel, over what, in how many workgroups.
 *
 * @module
 */

import type {
  Affine,
  Device,
  Epilogue,
  FusedGradientArrays,
  GradientSums,
  Prologue,
  Statistics,
} from "../../lib/device.ts";
import { extents, type Format, type Tensor } from "../../lib/tensor.ts";
import { addScaledKernel, gateKernel, reluKernel } from "../wgsl/elementwise.ts";
import {
  gradientSumsKernel,
  HEADER,
  mergedSumsKernel,
  restatedSumsKernel,
} from "../wgsl/gradient_sums.ts";
import { gradientsKernel, gradParametersKernel } from "../wgsl/gradients.ts";
import type { Kernel } from "../wgsl/kernel.ts";
import type { Tile } from "../wgsl/tiles.ts";
import { momentsKernel } from "../wgsl/moments.ts";
import { normalizeKernel } from "../wgsl/normalize.ts";
import { mergedMomentsKernel, runningStatsKernel, type Source } from "../wgsl/statistics.ts";
import {
  type Arrays,
  bytesOf,
  bytesPerChannel,
  type Contents,
  type Elements,
  float16Missing,
  padded,
  type Slot,
  type WebGpuArray,
} from "./arrays.ts";
import type { Recorder } from "./launches.ts";
import type { Memory } from "./memory.ts";
import { channelTile, shares, slicesOf, tiling } from "./plan.ts";
import type { Range } from "./programs.ts";
import { channelsOf, type Limits, type Tensors, walk } from "./walks.ts";

type A = WebGpuArray;
type Beside = Readonly<Record<string, Slot | null>>;

/** What the operations are made of. */
export interface Machine {
  readonly gpuDevice: GPUDevice;
  readonly memory: Memory;
  readonly arrays: Arrays;
  readonly limits: Limits;
  readonly float16: boolean;
  /** Runs a body with the recorder of the open batch, or with one of its own that is launched at its end. */
  readonly record: <T>(body: (recorder: Recorder) => T) => T;
}

/** Statistics as the kernels take them. */
interface Looked {
  readonly source: Source;
  readonly handles: readonly A[];
  readonly arrays: Readonly<Record<string, Slot>>;
  readonly slices: number;
}

/** The operations; the rest of a device is the same inside a batch and out. */
export type Operations = Omit<Device<A>, "info" | "free" | "owns" | "describe" | "batch" | "adopt">;

const NO_EPILOGUE: Epilogue<A> = { residual: null, relu: false };
const NO_PROLOGUE: Prologue<A> = { output: null, residualFormat: null };

/**
 * Makes the operations of a device.
 *
 * @param machine what they are made of
 * @returns the operations
 */
export function operations(machine: Machine): Operations {
  const { gpuDevice, memory, arrays, limits, float16, record } = machine;

  /** Room for an array; its contents come with what the recorder launches. */
  const room = <C extends Contents>(contents: C, recorder: Recorder | null): [A, Slot<C>] => {
    if (contents.kind === "elements" && contents.dtype === "float16" && !float16) {
      throw float16Missing();
    }
    const records = contents.kind === "elements" ? contents.length : contents.channels;
    const size = records * bytesPerChannel(contents);
    const block = memory.allocate(padded(size), "storage");
    const range = { block, offset: 0, size };
    return [arrays.own(range, contents, recorder), { ...range, contents, recorder }];
  };
  /** An array with contents from the host, which are made once there is room for them. */
  const fill = (contents: Contents, make: () => ArrayBufferView<ArrayBuffer>): A => {
    const [array, { block }] = room(contents, null);
    const data = make();
    if (data.byteLength > 0) gpuDevice.queue.writeBuffer(block.buffer, 0, data);
    return array;
  };
  const zeros = (channels: number): A =>
    fill(
      { kind: "elements", length: channels, dtype: "float32" },
      () => new Float32Array(channels),
    );
  const elements = (array: A, recorder: Recorder) => arrays.slot(array, "elements", recorder);
  const orNull = (array: A | null, recorder: Recorder) => array && elements(array, recorder);
  const part = ({ data, format }: Tensor<A>, recorder: Recorder) => ({
    slot: elements(data, recorder),
    format,
  });
  const partOrNull = (tensor: Tensor<A> | null, recorder: Recorder) =>
    tensor && part(tensor, recorder);
  const like = (tensor: Tensor<A>, recorder: Recorder): [A, Slot<Elements>] => {
    const { contents } = elements(tensor.data, recorder);
    return room(contents, recorder);
  };
  const vector = (channels: number, recorder: Recorder): [A, Slot<Elements>] =>
    room({ kind: "elements", length: channels, dtype: "float32" }, recorder);

  /** Looks statistics up; kernels take either moments, or a mean and a variance. */
  const look = (statistics: Statistics<A>, recorder: Recorder): Looked => {
    if (statistics.source === "running") {
      const [mean, variance] = [statistics.mean, statistics.variance];
      return {
        source: "running",
        handles: [mean, variance],
        arrays: { mean: elements(mean, recorder), variance: elements(variance, recorder) },
        slices: 1,
      };
    }
    const moments = arrays.slot(statistics.moments, "moments", recorder);
    return {
      source: "batch",
      handles: [statistics.moments],
      arrays: { moments },
      slices: moments.contents.slices,
    };
  };
  const largest = (slots: readonly (Slot | null)[]) =>
    Math.max(4, ...slots.map((slot) => slot ? bytesPerChannel(slot.contents) : 0));
  const plan = (
    shape: readonly number[],
    tensors: Tensors,
    beside: Beside,
  ) => walk(shape, tensors, largest(Object.values(beside)), limits);

  /** Launches a kernel that walks no tensor over all channels, in parts that can be bound. */
  const overChannels = (
    recorder: Recorder,
    kernel: (tile: Tile) => Kernel,
    channels: number,
    beside: Readonly<Record<string, Slot>>,
    parameters: Readonly<Record<string, number>>,
  ): void => {
    const most = Math.floor(
      (limits.bindingBytes - limits.alignment) / largest(Object.values(beside)),
    );
    const tile = channelTile(limits.workgroup);
    const made = kernel(tile);
    for (let channel = 0; channel < channels; channel += most) {
      const box = { channel, channels: Math.min(most, channels - channel) };
      const { workgroups, parameters: counts } = tiling(
        { samples: 1, inner: 1, channels: box.channels },
        tile,
        1,
      );
      const ranges: Record<string, Range> = {};
      const values: Record<string, number> = { ...counts, ...parameters };
      for (const [name, slot] of Object.entries(beside)) {
        const { range, at } = channelsOf(slot, box, limits);
        ranges[name] = range;
        values[`${name}At`] = at;
      }
      recorder.dispatch(made, ranges, values, workgroups);
    }
  };

  const moments = (input: Tensor<A>): A =>
    record((recorder) => {
      const x = part(input, recorder);
      const { batch, channels, inner } = extents(input.shape);
      const count = batch * inner;
      if (count === 0) {
        const contents = { kind: "moments", channels, slices: 1, count } as const;
        return fill(contents, () => new Float32Array(4 * channels));
      }
      const { cells, tile } = plan(input.shape, { x }, {});
      const slices = slicesOf({ samples: batch, channels, inner }, cells, tile);
      const total = slices * cells;
      const [array, parts] = room({ kind: "moments", channels, slices: total, count }, recorder);
      plan(input.shape, { x }, { parts }).launch(recorder, {
        kernel: momentsKernel({ ...tile, dtype: input.dtype }),
        arrays: { parts },
        slices,
        also: ({ cell }) => ({
          parameters: { zero: 0, partsSlices: total, firstSlice: cell * slices },
        }),
      });
      return array;
    });

  const normalize = (
    input: Tensor<A>,
    statistics: Statistics<A>,
    affine: Affine<A>,
    { residual, relu }: Epilogue<A> = NO_EPILOGUE,
  ): A =>
    record((recorder) => {
      const x = part(input, recorder);
      const stats = look(statistics, recorder);
      const beside = {
        ...stats.arrays,
        weight: orNull(affine.weight, recorder),
        bias: orNull(affine.bias, recorder),
      };
      const added = partOrNull(residual, recorder);
      const [array, slot] = like(input, recorder);
      if (slot.contents.length === 0) return array;
      const y = { slot, format: input.format };
      const over = plan(input.shape, { x, residual: added, y }, beside);
      const { dtype } = input;
      const { tile } = over;
      over.launch(recorder, {
        kernel: normalizeKernel({
          ...{ ...tile, dtype, source: stats.source, relu },
          weight: beside.weight !== null,
          bias: beside.bias !== null,
          residual: added !== null,
        }),
        arrays: beside,
        slices: shares(over.boxes[0], tile, stats.slices),
        also: () => ({ parameters: { zero: 0, momentsSlices: stats.slices, eps: affine.eps } }),
      });
      return array;
    });

  const gradientSums = (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
    { output }: Prologue<A> = NO_PROLOGUE,
  ): A =>
    record((recorder) => {
      const tensors = {
        x: part(input, recorder),
        gradOutput: part(gradOutput, recorder),
        output: partOrNull(output, recorder),
      };
      const stats = look(statistics, recorder);
      const { batch, channels, inner } = extents(input.shape);
      const { handles } = stats;
      const contents = { kind: "sums", channels, empty: false, statistics: handles } as const;
      if (batch * inner === 0) {
        return fill(
          { ...contents, slices: 1, empty: true },
          () => new Float32Array(2 * (HEADER + 1) * channels),
        );
      }
      const { cells, tile } = plan(input.shape, tensors, {});
      const slices = slicesOf({ samples: batch, channels, inner }, cells, tile);
      const total = slices * cells;
      const [array, parts] = room({ ...contents, slices: total }, recorder);
      const beside = { ...stats.arrays, parts };
      const { dtype } = input;
      plan(input.shape, tensors, beside).launch(recorder, {
        kernel: gradientSumsKernel({
          ...{ ...tile, dtype, source: stats.source },
          gated: output !== null,
        }),
        arrays: beside,
        slices,
        also: ({ cell }) => ({
          parameters: {
            ...{ zero: 0, momentsSlices: stats.slices },
            ...{ partsSlices: total, firstSlice: cell * slices },
          },
        }),
      });
      return array;
    });

  /** Sums with these statistics before them: themselves, or a copy to be freed. */
  const stated = (array: A, statistics: Statistics<A>, recorder: Recorder) => {
    const local = arrays.slot(array, "sums", recorder);
    const stats = look(statistics, recorder);
    const known = local.contents.statistics;
    if (known.length === stats.handles.length && known.every((a, i) => a === stats.handles[i])) {
      return { local, scratch: null };
    }
    const { channels, slices } = local.contents;
    const contents = { ...local.contents, slices: 1, statistics: stats.handles };
    const [scratch, restated] = room(contents, recorder);
    const kernel = (tile: Tile) => restatedSumsKernel({ ...tile, source: stats.source });
    const beside = { local, ...stats.arrays, restated };
    const parameters = { zero: 0, momentsSlices: stats.slices, localSlices: slices };
    overChannels(recorder, kernel, channels, beside, parameters);
    return { local: restated, scratch };
  };

  const gradients = (
    input: Tensor<A>,
    gradOutput: Tensor<A>,
    statistics: Statistics<A>,
    sums: GradientSums<A>,
    { weight, bias, eps }: Affine<A>,
    { output, residualFormat }: Prologue<A> = NO_PROLOGUE,
  ): FusedGradientArrays<A> =>
    record((recorder) => {
      const given = {
        x: part(input, recorder),
        gradOutput: part(gradOutput, recorder),
        output: partOrNull(output, recorder),
      };
      const scale = orNull(weight, recorder);
      orNull(bias, recorder);
      const total = sums.total && arrays.slot(sums.total, "sums", recorder);
      const [gradInput, dx] = like(input, recorder);
      const [gradResidual, dr] = residualFormat ? like(gradOutput, recorder) : [null, null];
      const { channels } = extents(input.shape);
      if (dx.contents.length === 0) {
        return {
          ...{ gradInput, gradResidual },
          gradWeight: weight && zeros(channels),
          gradBias: bias && zeros(channels),
        };
      }
      const { local, scratch } = stated(sums.local, statistics, recorder);
      const kind = sums.total === null ? "none" : sums.total === sums.local ? "local" : "other";
      const pair = weight || bias ? gradientPair(channels, recorder) : null;
      const tensors: Tensors = {
        gradInput: { slot: dx, format: input.format },
        ...given,
        x: total ? given.x : null,
        gradResidual: dr && residualFormat ? { slot: dr, format: residualFormat } : null,
      };
      const beside = { local, total: kind === "other" ? total : null, weight: scale };
      const buffers = [...Object.values(tensors), ...Object.values(beside)].filter(Boolean).length;
      // One dispatch for everything, if a kernel may bind so many buffers.
      const parameters = pair !== null && buffers < limits.storageBuffers && pair.fits;
      const over = plan(input.shape, tensors, beside);
      const { tile } = over;
      const { dtype } = input;
      const localSlices = local.contents.slices;
      over.launch(recorder, {
        kernel: gradientsKernel({
          ...{ ...tile, dtype, total: kind, parameters },
          weight: scale !== null,
          gated: output !== null,
          residual: dr !== null,
        }),
        arrays: beside,
        slices: shares(over.boxes[0], tile, localSlices),
        also: (box) => ({
          parameters: {
            ...{ eps, localSlices },
            ...(total && { totalSlices: total.contents.slices }),
            ...(parameters && {
              gradWeightAt: box.channel,
              gradBiasAt: pair.stride + box.channel,
              writesParameters: box.cell === 0 ? 1 : 0,
            }),
          },
          ...(parameters && { ranges: { gradParameters: pair.range } }),
        }),
      });
      if (pair && !parameters) {
        const alone = { local, gradWeight: pair.weight[1], gradBias: pair.bias[1] };
        overChannels(recorder, gradParametersKernel, channels, alone, { eps, localSlices });
      }
      if (scratch) arrays.free(scratch);
      if (pair && !weight) arrays.free(pair.weight[0]);
      if (pair && !bias) arrays.free(pair.bias[0]);
      return {
        ...{ gradInput, gradResidual },
        gradWeight: weight && pair ? pair.weight[0] : null,
        gradBias: bias && pair ? pair.bias[0] : null,
      };
    });

  /** Two vectors in one block, so that one binding reaches both. */
  const gradientPair = (channels: number, recorder: Recorder) => {
    const row = Math.ceil(4 * channels / limits.alignment) * limits.alignment;
    const block = memory.allocate(2 * row, "storage");
    const contents = { kind: "elements", length: channels, dtype: "float32" } as const;
    const make = (offset: number): [A, Slot] => {
      const range = { block, offset, size: 4 * channels };
      return [arrays.own(range, contents, recorder), { ...range, contents, recorder }];
    };
    return {
      weight: make(0),
      bias: make(row),
      range: { block, offset: 0, size: row + 4 * channels },
      stride: row / 4,
      fits: 2 * row <= limits.bindingBytes,
    };
  };

  const gate = (gradOutput: Tensor<A>, output: Tensor<A> | null, format: Format): A =>
    record((recorder) => {
      const given = {
        gradOutput: part(gradOutput, recorder),
        output: partOrNull(output, recorder),
      };
      const [array, slot] = like(gradOutput, recorder);
      if (slot.contents.length === 0) return array;
      // The tensor that is written comes first: its channels decide who writes what.
      const over = plan(gradOutput.shape, { passed: { slot, format }, ...given }, {});
      const { tile } = over;
      over.launch(recorder, {
        kernel: gateKernel({ ...tile, dtype: gradOutput.dtype, gated: output !== null }),
        arrays: {},
        slices: shares(over.boxes[0], tile, 1),
      });
      return array;
    });

  /** Launches an elementwise kernel over arrays of one length. */
  const elementwise = (
    recorder: Recorder,
    kernel: (tile: Tile) => Kernel,
    slots: Readonly<Record<string, Slot<Elements>>>,
    parameters: Readonly<Record<string, number>>,
  ): void => {
    const tensors = Object.fromEntries(
      Object.entries(slots).map((
        [name, slot],
      ) => [name, { slot, format: "channelsFirst" as const }]),
    );
    const [{ contents: { length } }] = Object.values(slots);
    if (length === 0) return;
    const over = plan([1, 1, length], tensors, {});
    const slices = shares(over.boxes[0], over.tile, 1);
    over.launch(recorder, {
      kernel: kernel(over.tile),
      arrays: {},
      slices,
      also: () => ({ parameters }),
    });
  };

  /** Reads an array of so many float32 per channel back. */
  const readRecords = async (recorder: Recorder, range: Range) =>
    new Float32Array(await recorder.readBack(range));

  return Object.freeze<Operations>({
    upload: (values, dtype = "float32") =>
      record(() => {
        const contents = { kind: "elements", length: values.length, dtype } as const;
        return fill(contents, () => {
          // Padded: what is written is a multiple of 4 bytes.
          const length = padded(values.length * bytesOf(dtype)) / bytesOf(dtype);
          const stored = dtype === "float16" ? new Float16Array(length) : new Float32Array(length);
          stored.set(values);
          return stored;
        });
      }),
    download: (array) =>
      promised(() =>
        record(async (recorder) => {
          const { contents: { length, dtype }, block, offset } = elements(array, recorder);
          if (length === 0) return new Float32Array();
          const { range, at } = aligned(block, offset, length * bytesOf(dtype));
          const bytes = await recorder.readBack(range);
          return dtype === "float32"
            ? new Float32Array(bytes, at, length).slice()
            : Float32Array.from(new Float16Array(bytes, at, length));
        })
      ),

    moments,
    momentsToWire: (array) =>
      promised(() =>
        record(async (recorder) => {
          const slot = arrays.slot(array, "moments", recorder);
          const { channels, count, slices } = slot.contents;
          const wire = new Float64Array(1 + 2 * channels);
          if (count === 0) return wire;
          const contents = { ...slot.contents, slices: 1 };
          const [scratch, merged] = slices > 1 ? room(contents, recorder) : [null, slot];
          if (scratch) {
            const parameters = { zero: 0, momentsSlices: slices };
            const beside = { moments: slot, merged };
            overChannels(recorder, mergedMomentsKernel, channels, beside, parameters);
          }
          const reading = readRecords(recorder, merged);
          if (scratch) arrays.free(scratch);
          const records = await reading;
          wire[0] = count;
          for (let c = 0; c < channels; c++) {
            wire[1 + c] = records[4 * c] + records[4 * c + 1];
            wire[1 + channels + c] = records[4 * c + 2];
          }
          return wire;
        })
      ),
    momentsFromWire: (wire) =>
      record(() => {
        const channels = (wire.length - 1) / 2;
        const [count] = wire;
        const records = new Float32Array(4 * channels);
        for (let c = 0; c < channels; c++) {
          const mean = wire[1 + c];
          const high = Math.fround(mean);
          // An infinite mean has no remainder.
          const low = Number.isFinite(high) ? mean - high : 0;
          records.set([high, low, wire[1 + channels + c], count], 4 * c);
        }
        return fill({ kind: "moments", channels, slices: 1, count }, () => records);
      }),
    normalize: (input, statistics, affine) => normalize(input, statistics, affine),
    updateRunningStats: ({ runningMean, runningVar }, array, factor) =>
      record((recorder) => {
        const moments = arrays.slot(array, "moments", recorder);
        const { channels, slices } = moments.contents;
        const [newMean, mean] = vector(channels, recorder);
        const [newVar, variance] = vector(channels, recorder);
        const beside = {
          moments,
          oldMean: elements(runningMean, recorder),
          oldVar: elements(runningVar, recorder),
          newMean: mean,
          newVar: variance,
        };
        const parameters = { zero: 0, momentsSlices: slices, keep: 1 - factor, factor };
        overChannels(recorder, runningStatsKernel, channels, beside, parameters);
        return { runningMean: newMean, runningVar: newVar };
      }),
    gradientSums: (input, gradOutput, statistics) => gradientSums(input, gradOutput, statistics),
    sumsToWire: (array) =>
      promised(() =>
        record(async (recorder) => {
          const slot = arrays.slot(array, "sums", recorder);
          const { channels, slices, empty } = slot.contents;
          const wire = new Float64Array(2 * channels);
          if (empty) return wire;
          const contents = { ...slot.contents, slices: 1 };
          const [scratch, merged] = slices > 1 ? room(contents, recorder) : [null, slot];
          if (scratch) {
            const beside = { local: slot, merged };
            overChannels(recorder, mergedSumsKernel, channels, beside, { localSlices: slices });
          }
          const reading = readRecords(recorder, merged);
          if (scratch) arrays.free(scratch);
          const records = await reading;
          for (let c = 0; c < channels; c++) {
            const at = 2 * ((HEADER + 1) * c + HEADER);
            wire[c] = records[at];
            wire[channels + c] = records[at + 1];
          }
          return wire;
        })
      ),
    sumsFromWire: (wire) =>
      record(() => {
        const channels = wire.length / 2;
        const records = new Float32Array(2 * (HEADER + 1) * channels);
        for (let c = 0; c < channels; c++) {
          records.set([wire[c], wire[channels + c]], 2 * ((HEADER + 1) * c + HEADER));
        }
        return fill({ kind: "sums", channels, slices: 1, empty: false, statistics: [] }, () =>
          records);
      }),
    gradients: (input, gradOutput, statistics, sums, affine) => {
      const { gradResidual: _, ...arrays } = gradients(
        ...[input, gradOutput, statistics, sums, affine] as const,
      );
      return arrays;
    },

    addScaled: (x, y, scale) =>
      record((recorder) => {
        const [augend, addend] = [elements(x, recorder), elements(y, recorder)];
        const [array, sum] = room(augend.contents, recorder);
        const dtypes = { x: augend.contents.dtype, y: addend.contents.dtype };
        const slots = { x: augend, y: addend, sum };
        elementwise(recorder, (tile) => addScaledKernel({ ...tile, ...dtypes }), slots, { scale });
        return array;
      }),
    relu: (x) =>
      record((recorder) => {
        const slot = elements(x, recorder);
        const [array, rectified] = room(slot.contents, recorder);
        const { dtype } = slot.contents;
        elementwise(recorder, (tile) => reluKernel({ ...tile, dtype }), { x: slot, rectified }, {});
        return array;
      }),
    gate,

    fused: Object.freeze({ normalize, gradientSums, gradients }),
  });
}

/** A range that can be copied: offset and size are multiples of 4; `at` is where the wanted bytes begin in it. */
function aligned(block: Range["block"], offset: number, size: number) {
  const start = Math.floor(offset / 4) * 4;
  const range = { block, offset: start, size: padded(offset + size - start) };
  return { range, at: offset - start };
}

/** Makes a throw a rejection. */
async function promised<T>(body: () => Promise<T>): Promise<T> {
  return await body();
}
