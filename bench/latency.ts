/** What a GPU costs whoever asks it: waiting for an answer, and telling it what to do. */

import {
  batch,
  batchNormBackward,
  batchNormForward,
  type Device,
  region,
  release,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../mod.ts";
import type { WebGpuArray } from "../kernels/webgpu_device.ts";
import { type BatchShape, place, titleOf } from "./batches.ts";
import { launchTimes, type Timed, workTimes } from "./measure.ts";
import type { WebGpuSubject } from "./subjects.ts";

/** A named cost in ms. */
export type Costs = Readonly<Record<string, number>>;

/** A batch for two ranks, and one for one. */
const PAIR: BatchShape = { shape: [4, 16], format: "channelsFirst" };
const TINY: BatchShape = { shape: [2, 16], format: "channelsFirst" };
/** Layers of a ResNet-50 that normalize. */
const LAYERS = 53;
/** Bytes of a small readback. */
const KIB = 1024;

/** Measures what it takes to learn something from the GPU. */
export async function waitCosts({ device, settle }: WebGpuSubject): Promise<Costs> {
  const { gpuDevice } = device;
  const { COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const source = gpuDevice.createBuffer({ size: KIB, usage: COPY_SRC });
  const target = gpuDevice.createBuffer({ size: KIB, usage: COPY_DST | MAP_READ });
  const readback = async () => {
    const encoder = gpuDevice.createCommandEncoder();
    encoder.copyBufferToBuffer(source, 0, target, 0, KIB);
    gpuDevice.queue.submit([encoder.finish()]);
    await target.mapAsync(GPUMapMode.READ);
    const bytes = target.getMappedRange().slice(0);
    target.unmap();
    return bytes;
  };
  const vector = tensor(device, new Float32Array(KIB / 4), [KIB / 4, 1]);
  const ranks = [0, 1].map((rank) => place(device, PAIR, rank, 2));
  const step = () =>
    region(device, async (scope) => {
      await runRanks(2, async (group) => {
        const effects = { device: scope, group };
        const { state, x, dy } = ranks[group.rank];
        const { saved } = await syncBatchNormForward(state, x, effects);
        await syncBatchNormBackward(saved, dy, effects);
      });
    });
  const costs = await measured((rows) => workTimes(rows, 7), {
    "wait for an idle queue": { run: () => settle?.() },
    "readback of 1 KiB": { run: readback },
    "toArray of 256 float32": { run: () => toArray(device, vector) },
    "synchronised forward and backward [4,16], 2 ranks of one thread": { run: step },
  });
  release(device, [vector, ranks]);
  source.destroy();
  target.destroy();
  return costs;
}

/** Measures what a call costs the host until it returns. */
export async function launchCosts({ device, settle, copy, shapes }: WebGpuSubject): Promise<Costs> {
  const small = copy(KIB);
  const placed = [TINY, shapes[1]].map((shape) => {
    const { state, x, dy } = place(device, shape);
    return { shape, state, x, dy, made: batchNormForward(state, x, { device }) };
  });
  const [tiny] = placed;
  const launch = (body: (scope: Device<WebGpuArray>) => unknown, calls = 1): Timed => ({
    calls,
    settle,
    run: () => {
      region(device, (scope) => {
        body(scope);
      });
    },
  });
  const layers = (body: (scope: Device<WebGpuArray>) => unknown): Timed =>
    launch((scope) =>
      batch(scope, (joined) => {
        for (let layer = 0; layer < LAYERS; layer++) body(joined);
      }), LAYERS);
  const forward = ({ state, x }: typeof tiny) => (scope: Device<WebGpuArray>) =>
    batchNormForward(state, x, { device: scope });
  const backward = ({ made, dy }: typeof tiny) => (scope: Device<WebGpuArray>) =>
    batchNormBackward(made.saved, dy, { device: scope });
  const costs = await measured(launchTimes, {
    "a plain copy, for comparison": { run: small.run, settle },
    ...Object.fromEntries(placed.flatMap((of) => {
      const title = titleOf(of.shape);
      return [
        [`batchNormForward ${title}`, launch(forward(of))],
        [`batchNormBackward ${title}`, launch(backward(of))],
      ];
    })),
    [`batchNormForward [2,16] in a batch of ${LAYERS}, each`]: layers(forward(tiny)),
    [`batchNormBackward [2,16] in a batch of ${LAYERS}, each`]: layers(backward(tiny)),
  });
  release(device, placed);
  small[Symbol.dispose]();
  return costs;
}

async function measured(
  measure: (rows: readonly Timed[]) => Promise<number[]>,
  rows: Readonly<Record<string, Timed>>,
): Promise<Costs> {
  const times = await measure(Object.values(rows));
  return Object.fromEntries(Object.keys(rows).map((name, i) => [name, times[i]]));
}
