/**
 * WebGPU in a browser, and what the browser adds: its binding, its shader compiler's settings, its buffers and losses.
 *
 * Chromium's WebGPU is Dawn and Firefox's is wgpu; Node's Dawn and Deno's own WebGPU put those to every kernel. So PyTorch's
 * numbers come by here, a law, special values, digits, what is bound and what fails; neither shapes, derivatives and options
 * once more, nor what the host asks of a GPU, which is the same JavaScript everywhere.
 */

import assert from "node:assert/strict";
import { requestWebGpuDevice } from "../../../kernels/webgpu_device.ts";
import { tensor, toArray } from "../../../mod.ts";
import { adversarialSuite } from "../../suites/adversarial.ts";
import { goldenSuite } from "../../suites/golden.ts";
import { deviceLaw } from "../../suites/law.ts";
import { bindingTests } from "../../webgpu/bindings.ts";
import { digitTests } from "../../webgpu/digits.ts";
import { failureTests } from "../../webgpu/failures.ts";
import { opener } from "../../webgpu_kit.ts";
import { webgpuSuite } from "../../webgpu_suite.ts";

Deno.test("webgpu: the browser has an adapter", async () => {
  assert(await navigator.gpu?.requestAdapter());
});

Deno.test("webgpu: a readback takes no longer than it must", async () => {
  await using device = await requestWebGpuDevice();
  const x = tensor(device, new Float32Array(256), [256, 1]);
  const times: number[] = [];
  for (let i = 0; i < 9; i++) {
    const start = performance.now();
    await toArray(device, x);
    times.push(performance.now() - start);
  }
  const median = times.toSorted((a, b) => a - b)[4];
  // Firefox looks every 100 ms by itself; nudged it takes 12.
  assert(median < 60, `${times} ms`);
});

await webgpuSuite(() => ({ name: "webgpu, float32", everything: false, cases: 3 }), {
  what: "the device suite's numbers",
  suite: (kit) => {
    deviceLaw(kit);
    goldenSuite(kit);
    adversarialSuite(kit);
  },
});

const opens = opener(navigator.gpu, { name: "webgpu" });
bindingTests(opens);
digitTests(opens);
failureTests(opens);
opens.ending();
