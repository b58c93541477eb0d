/** The trainer on TensorFlow.js's webgpu backend, wherever it runs: in Deno, or in a page. */

import { webgpuDevice } from "../../kernels/webgpu_device.ts";
import { runRanks } from "../../mod.ts";
import type { Tfjs } from "./trainer_models.ts";
import { type Outcome, type Plan, trainRank } from "./trainer_runs.ts";

/** What is trained: enough to meet every way between the two memories, in few of tfjs's shaders. */
export const PLANS: readonly Plan[] = [
  { name: "maps", optimizer: "momentum", batches: [[5, 3], [7, 0]], steps: 5 },
  { name: "odd", optimizer: "sgd", batches: [[1, 4, 3]], steps: 5 },
];

/** What a page trains: SwiftShader takes a second for every few shaders. */
export const PAGE_PLANS = PLANS.slice(1);

/** What came of it. */
export interface GpuOutcome {
  readonly ranks: readonly (readonly Outcome[])[];
  readonly errors: readonly string[];
  /** Copies from memory of the GPU to memory of the GPU. */
  readonly copies: number;
}

type CopyArguments = [from: GPUBuffer, at: number, to: GPUBuffer, there: number, size: number];

/** Counts copies that are neither an upload nor a readback, while a body runs. */
async function countCopies(body: () => Promise<void>): Promise<number> {
  const { prototype } = GPUCommandEncoder;
  const { copyBufferToBuffer } = prototype;
  const [mapRead, mapWrite] = [0x1, 0x2];
  let [copies, all] = [0, 0];
  Object.assign(prototype, {
    copyBufferToBuffer(this: GPUCommandEncoder, ...given: CopyArguments) {
      const [from, , to] = given;
      all++;
      if ((from.usage & mapWrite) === 0 && (to.usage & mapRead) === 0) copies++;
      return copyBufferToBuffer.apply(this, given);
    },
  });
  try {
    await body();
  } finally {
    Object.assign(prototype, { copyBufferToBuffer });
  }
  if (all === 0) throw new Error("no readback was seen");
  return copies;
}

/** Trains ranks in this thread on tfjs's own GPUDevice. */
export async function trainOnGpu(tf: Tfjs, plans = PLANS): Promise<GpuOutcome> {
  const { device: gpuDevice } = tf.backend() as { readonly device: GPUDevice };
  const errors: string[] = [];
  gpuDevice.addEventListener("uncapturederror", (event) => {
    errors.push((event as unknown as { readonly error: GPUError }).error.message);
  });
  using device = webgpuDevice(gpuDevice, { exactBuffers: true });
  const ranks: Outcome[][] = [];
  const copies = await countCopies(async () => {
    for (const plan of plans) {
      ranks.push(
        await runRanks(
          plan.batches[0].length,
          (group) => trainRank(tf, plan, { device, group, rank: group.rank }),
        ),
      );
    }
  });
  return { ranks, errors, copies };
}
