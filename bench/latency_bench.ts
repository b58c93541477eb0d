/**
 * What a GPU costs whoever asks it: waiting for an answer, and telling it what to do. By `deno bench` where there is an
 * adapter.
 */

import {
  batch,
  batchNormBackward,
  batchNormForward,
  type Device,
  region,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
  toArray,
} from "../mod.ts";
import type { WebGpuArray } from "../kernels/webgpu_device.ts";
import { first, numbersOf, place, titleOf } from "./batches.ts";
import { gpus, type GpuSubject, ONCE, QUICK } from "./devices.ts";

const [PAIR, TINY] = [first(4, 16), first(2, 16)];
const LAYERS = 53;
const KIB = 1024;
/** A wait takes Deno's own WebGPU 10 ms, and a software adapter whole cores: few iterations must do. */
const EFFORT = QUICK ? ONCE : { n: 20, warmup: 5 };

/** What it takes to learn something from the GPU. */
function answers({ name, device, settle }: GpuSubject): void {
  const { gpuDevice } = device;
  const { COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const source = gpuDevice.createBuffer({ size: KIB, usage: COPY_SRC });
  const target = gpuDevice.createBuffer({ size: KIB, usage: COPY_DST | MAP_READ });
  const vector = tensor(device, new Float32Array(KIB / 4), [KIB / 4, 1]);
  const numbers = numbersOf(PAIR);
  const ranks = [0, 1].map((rank) => place(device, PAIR, numbers, { rank, worldSize: 2 }));
  const costs: Readonly<Record<string, () => Promise<unknown>>> = {
    "wait for an idle queue": settle,
    "readback of 1 KiB": async () => {
      const encoder = gpuDevice.createCommandEncoder();
      encoder.copyBufferToBuffer(source, 0, target, 0, KIB);
      gpuDevice.queue.submit([encoder.finish()]);
      await target.mapAsync(GPUMapMode.READ);
      target.getMappedRange().slice(0);
      target.unmap();
    },
    "toArray of 256 float32": () => toArray(device, vector),
    "synchronised forward and backward [4,16], 2 ranks of one thread": () =>
      region(device, async (scope) => {
        await runRanks(2, async (group) => {
          const [effects, { state, x, dy }] = [{ device: scope, group }, ranks[group.rank]];
          const { saved } = await syncBatchNormForward(state, x, effects);
          await syncBatchNormBackward(saved, dy, effects);
        });
      }),
  };
  for (const [cost, run] of Object.entries(costs)) {
    const fn = async () => void await run();
    const group = `until the GPU has answered, ${name}`;
    Deno.bench({ name: cost, group, fn, ...EFFORT });
  }
}

/** What a call costs the host until it returns; the queue is emptied with the clock stopped. */
function launches({ name, device, settle, copy, shapes }: GpuSubject): void {
  const group = `until a call returns, ${name}`;
  const add = (what: string, body: (scope: Device<WebGpuArray>) => unknown, baseline = false) => {
    const fn = async (bench: Deno.BenchContext) => {
      bench.start();
      region(device, (scope) => {
        body(scope);
      });
      bench.end();
      await settle();
    };
    Deno.bench({ name: what, group, baseline, fn, ...EFFORT });
  };
  add("plain copy of 1 KiB", copy(KIB), true);
  for (const shape of [TINY, shapes[1]]) {
    const { state, x, dy } = place(device, shape, numbersOf(shape));
    const { saved } = batchNormForward(state, x, { device });
    const calls = {
      batchNormForward: (scope: Device<WebGpuArray>) =>
        batchNormForward(state, x, { device: scope }),
      batchNormBackward: (scope: Device<WebGpuArray>) =>
        batchNormBackward(saved, dy, { device: scope }),
    };
    for (const [call, body] of Object.entries(calls)) {
      add(`${call} ${titleOf(shape)}`, body);
      if (shape !== TINY) continue;
      add(`${LAYERS} of ${call} ${titleOf(shape)} in a batch`, (scope) =>
        batch(scope, (joined) => {
          for (let layer = 0; layer < LAYERS; layer++) body(joined);
        }));
    }
  }
}

for (const subject of await gpus()) {
  answers(subject);
  launches(subject);
}
