/** What a page of the trainer's tests does: it trains ranks on TensorFlow.js's own GPUDevice. */

import { type GpuOutcome, PAGE_PLANS, trainOnGpu } from "./trainer_gpu.ts";
import type { Tfjs } from "./trainer_models.ts";

export async function main(tf: Tfjs): Promise<GpuOutcome> {
  await tf.setBackend("webgpu");
  return await trainOnGpu(tf, PAGE_PLANS);
}
