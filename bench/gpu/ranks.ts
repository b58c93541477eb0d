/** Two ranks on one GPU with collectives: forward and backward of one batch norm, half of the batch each. */

import {
  type ProcessGroup,
  region,
  release,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
} from "../../mod.ts";
import { requestWebGpuDevice, type WebGpuDevice } from "../../kernels/webgpu_device.ts";
import { first, numbersOf, place } from "../batches.ts";
import { median } from "../measure.ts";
import { workers } from "../ranks.ts";
import { gpuAtHand } from "./adapter.ts";

const WORLD_SIZE = 2;

export interface RankOptions {
  readonly shape: readonly number[];
  readonly dawn: boolean;
  readonly rounds: number;
}

async function timeRank(
  device: WebGpuDevice,
  group: ProcessGroup,
  { shape, rounds }: RankOptions,
): Promise<number> {
  const batch = first(...shape);
  const placed = place(device, batch, numbersOf(batch), group);
  const { state, x, dy } = placed;
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
  release(device, placed);
  return median(times);
}

export async function ranksOfThread(device: WebGpuDevice, options: RankOptions): Promise<number> {
  return Math.max(...await runRanks(WORLD_SIZE, (group) => timeRank(device, group, options)));
}

/** Two ranks in workers, each with a device of its own on the same adapter; the time of the first. */
export function ranksInWorkers(options: RankOptions): Promise<number> {
  const task = { module: import.meta.url, name: "serveSteps" };
  return workers()<RankOptions, number>(WORLD_SIZE, task, options);
}

export async function serveSteps(group: ProcessGroup, options: RankOptions): Promise<number> {
  await using device = await requestWebGpuDevice({ gpu: await gpuAtHand(options.dawn) });
  return await timeRank(device, group, options);
}
