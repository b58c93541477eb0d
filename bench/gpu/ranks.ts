/**
 * Two ranks on one GPU with collectives: forward and backward of one batch norm, half of the batch each.
 *
 * @module
 */

import {
  type ProcessGroup,
  region,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
} from "../../mod.ts";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import { requestWebGpuDevice, type WebGpuDevice } from "../../kernels/webgpu_device.ts";
import { type BatchShape, place } from "../batches.ts";

/** Ranks. */
const WORLD_SIZE = 2;

/** What is timed. */
export interface RankOptions {
  readonly shape: readonly number[];
  /** Dawn, or the runtime's own WebGPU. */
  readonly dawn: boolean;
  /** Steps; the median counts. */
  readonly rounds: number;
}

/** Dawn, or the runtime's own WebGPU. */
export async function gpuAtHand(dawn: boolean): Promise<GPU> {
  return dawn ? (await import("webgpu")).create([]) : navigator.gpu;
}

/**
 * Times the steps of one rank.
 *
 * @param device where it computes
 * @param group the ranks
 * @param options what is timed
 * @returns milliseconds of a step: the median over the rounds, after one that warms up
 */
async function timeRank(
  device: WebGpuDevice,
  group: ProcessGroup,
  { shape, rounds }: RankOptions,
): Promise<number> {
  const batch: BatchShape = { shape, format: "channelsFirst" };
  const { state, x, dy } = place(device, batch, group.rank, group.worldSize);
  const times: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    await group.barrier();
    const start = performance.now();
    await region(device, async (scope) => {
      const effects = { device: scope, group };
      const { saved } = await syncBatchNormForward(state, x, effects);
      await syncBatchNormBackward(saved, dy, effects);
    });
    await device.gpuDevice.queue.onSubmittedWorkDone();
    if (round > 0) times.push(performance.now() - start);
  }
  device.free(x.data, dy.data);
  return times.sort((a, b) => a - b)[times.length >> 1];
}

/** Two ranks of this thread on one device. */
export async function ranksOfThread(device: WebGpuDevice, options: RankOptions): Promise<number> {
  return Math.max(...await runRanks(WORLD_SIZE, (group) => timeRank(device, group, options)));
}

/** Two ranks in workers, each with a device of its own on the same adapter. */
export async function ranksInWorkers(options: RankOptions): Promise<number> {
  const worker = new URL("worker_rank.ts", import.meta.url);
  const times = await spawnWorkers<RankOptions, number>(worker, WORLD_SIZE, { parameter: options });
  return Math.max(...times);
}

/** What a worker does. */
export async function serveSteps(group: ProcessGroup, options: RankOptions): Promise<number> {
  await using device = await requestWebGpuDevice({ gpu: await gpuAtHand(options.dawn) });
  return await timeRank(device, group, options);
}
