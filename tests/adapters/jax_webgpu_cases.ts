/** The law in jax-js on WebGPU, where there is an adapter: buffers are read where they lie, on one GPUDevice. */

import assert from "node:assert/strict";
import { initBatchNorm, inProcessGroup, runRanks } from "../../mod.ts";
import { syncBatchNorm } from "../../lib/adapters/jax.ts";
import { webgpuDevice } from "../../kernels/webgpu_device.ts";
import { testsWebgpu } from "../webgpu_kit.ts";
import { apart, CLOSE } from "./jax_apart.ts";
import { CNN, MLP, rowsOf, STEPS, trainRank, trainWhole } from "./jax_models.ts";
import { loadJax } from "./load_jax.ts";

/** jax-js keeps its GPUDevice as long as the process lives. */
const SANITIZE = { sanitizeOps: false, sanitizeResources: false };
const ignore = !(await testsWebgpu());

/** Of a CNN fewer steps: compiling jax-js's kernels is most of what it takes on a software adapter. */
const CASES = [
  [MLP, "Adam", [5, 0, 7], STEPS],
  [CNN, "SGD", [7, 5], 5],
] as const;

for (const [model, rule, counts, steps] of CASES) {
  Deno.test({
    name: `jax-js webgpu: ranks train the ${model.name} with ${rule} as jax-js does alone`,
    ignore,
    ...SANITIZE,
    fn: async () => {
      const wasm = await loadJax("wasm");
      const whole = await trainWhole(wasm!, model, { rows: rowsOf([12])[0], steps, rule });
      const jax = await loadJax("webgpu");
      assert(jax);
      using device = webgpuDevice(jax.getWebGPUDevice());
      const rows = rowsOf(counts);
      const [first, ...others] = await runRanks(
        counts.length,
        (group) => trainRank(jax, model, { device, group, rows: rows[group.rank], steps, rule }),
      );
      const { losses, weights } = apart(first, whole);
      assert(losses <= CLOSE && weights <= CLOSE, `off by ${losses}, ${weights}`);
      for (const other of others) assert.deepEqual(other, first, "the same bits on all ranks");
    },
  });
}

Deno.test({
  name: "jax-js webgpu: arrays are given up as on wasm, and another GPUDevice is refused",
  ignore,
  ...SANITIZE,
  fn: async () => {
    const jax = await loadJax("webgpu");
    assert(jax);
    using device = webgpuDevice(jax.getWebGPUDevice());
    const [group] = inProcessGroup(1);
    const norm = syncBatchNorm(jax, { device, group });
    const h = jax.numpy.array(Float32Array.of(1, 2, 6), { shape: [3, 1], device: "webgpu" });
    const dy = jax.numpy.array(Float32Array.of(1, 0, 0), { shape: [3, 1], device: "webgpu" });
    const state = initBatchNorm(device, 1, { affine: false });
    const { y, pullback } = await norm(h, null, null, state);
    // Forward saved h where it lies, so that it is kept until the way back is done.
    assert.deepEqual([h.refCount, y.refCount], [1, 1]);
    const [dh] = await pullback(dy);
    pullback.dispose();
    assert.deepEqual([h.refCount, dy.refCount, dh.refCount], [0, 0, 1]);
    const adapter = await navigator.gpu.requestAdapter();
    const gpuDevice = await adapter!.requestDevice();
    using other = webgpuDevice(gpuDevice);
    const elsewhere = syncBatchNorm(jax, { device: other, group });
    const fresh = initBatchNorm(other, 1, { affine: false });
    await assert.rejects(elsewhere(dh, null, null, fresh), {
      message: /as of webgpuDevice\(jax\.getWebGPUDevice\(\)\): .*, on another GPUDevice/,
    });
    gpuDevice.destroy();
  },
});
