/** The trainer on TensorFlow.js's webgpu backend in Deno and in Chromium, against TensorFlow.js on its CPU backend. */

import assert from "node:assert/strict";
import { hasBrowser } from "../browser/browsers.ts";
import { referenceDevice, runRanks } from "../../mod.ts";
import { requestWebGpuDevice, webgpuDevice } from "../../kernels/webgpu_device.ts";
import { createTrainer } from "../../lib/adapters/tfjs.ts";
import { testsWebgpu } from "../webgpu_kit.ts";
import { assertLaw } from "./trainer_assert.ts";
import { loadTf } from "./tfjs_load.ts";
import { visitPage } from "./page_visit.ts";
import { type GpuOutcome, PAGE_PLANS, PLANS, trainOnGpu } from "./trainer_gpu.ts";
import { SPECS, type Tfjs } from "./trainer_models.ts";
import { compiled, type Plan, trainPlain, trainRank } from "./trainer_runs.ts";

/** Asserts that what was trained on a GPU is what one process trains on the CPU. */
async function checkLaw(
  { ranks, errors, copies }: GpuOutcome,
  plans: readonly Plan[],
): Promise<void> {
  assert.deepEqual(errors, []);
  assert.equal(copies, 0, "copies on the GPU");
  const tf: Tfjs = await loadTf("cpu");
  const device = referenceDevice();
  assert.equal(ranks.length, plans.length);
  for (const [i, plan] of plans.entries()) {
    const batches = plan.batches.map((counts) => [counts.reduce((sum, count) => sum + count)]);
    const [one] = SPECS[plan.name].plain ? [await trainPlain(tf, plan)] : await runRanks(
      1,
      (group) => trainRank(tf, { ...plan, batches }, { device, group, rank: 0 }),
    );
    assertLaw(one, ranks[i]);
  }
}

const noGpu = !(await testsWebgpu());

/** Runs a body with tfjs's webgpu backend on a GPUDevice of ours: in Deno its own request for one fails. */
async function onWebgpu(body: (tf: Tfjs) => Promise<void>): Promise<void> {
  const tf: Tfjs = await loadTf("cpu");
  const { WebGPUBackend } = await import(
    "npm:@tensorflow/tfjs-backend-webgpu@4.22.0" as string
  );
  await using ours = await requestWebGpuDevice();
  const { gpuDevice } = ours;
  tf.removeBackend("webgpu");
  tf.registerBackend("webgpu", () => new WebGPUBackend(gpuDevice, gpuDevice.adapterInfo), 3);
  await tf.setBackend("webgpu");
  try {
    await body(tf);
  } finally {
    await tf.setBackend("cpu");
    tf.removeBackend("webgpu");
  }
}

Deno.test({
  name: "trainer on webgpu in Deno: ranks are one, on one GPUDevice with tfjs",
  ignore: noGpu,
  fn: async () => {
    let outcome: GpuOutcome | undefined;
    await onWebgpu(async (tf) => {
      const { device: gpuDevice } = tf.backend() as { readonly device: GPUDevice };
      using plain = webgpuDevice(gpuDevice);
      await using other = await requestWebGpuDevice({ exactBuffers: true });
      const group = {
        worldSize: 1,
        allReduce: async (own: Float64Array | Promise<Float64Array>) => await own,
      };
      const model = compiled(tf, PLANS[0]);
      for (
        const [device, text] of [
          [
            plain,
            /must be made with { exactBuffers: true }; of its buffers of 256 bytes a tensor has 12/,
          ],
          [other, /device must be on the GPUDevice of TensorFlow.js/],
        ] as const
      ) {
        assert.throws(() => createTrainer(tf, model, { group, device }), text);
      }
      outcome = await trainOnGpu(tf);
      using device = webgpuDevice(gpuDevice, { exactBuffers: true });
      const trainer = createTrainer(tf, model, { group, device });
      await tf.setBackend("cpu");
      const [xs, ys] = [[1, 4, 4, 3], [1, 3]].map((shape) => tf.zeros(shape as never));
      await assert.rejects(
        trainer.step(xs, ys),
        /backend must be the one that the trainer was made on.*"cpu"/,
      );
    });
    await checkLaw(outcome!, PLANS);
  },
});

Deno.test({
  name: "trainer on webgpu in Chromium: ranks are one, on the GPUDevice of tfjs",
  ignore: !(await hasBrowser("chromium")),
  fn: async () => {
    const outcome = await visitPage<GpuOutcome | string>("trainer_page.ts", [
      "npm:@tensorflow/tfjs@4.22.0",
      "npm:@tensorflow/tfjs-backend-webgpu@4.22.0",
    ]);
    if (typeof outcome === "string") assert.fail(outcome);
    await checkLaw(outcome, PAGE_PLANS);
  },
});
