/** What the WebGPU device asks of a GPUDevice over a long training, which needs no GPU: one that does nothing counts. */

import assert from "node:assert/strict";
import {
  batch,
  batchNormBackward,
  batchNormForward,
  initBatchNorm,
  release,
  tensor,
} from "../mod.ts";
import { webgpuDevice } from "../kernels/webgpu_device.ts";
import { nullGpu } from "./null_gpu.ts";
import { layersOf, stepper } from "../bench/resnet.ts";

Deno.test("webgpu: 10,000 training steps allocate, bind and compile nothing after the tenth", () => {
  const { gpuDevice, asked } = nullGpu();
  const device = webgpuDevice(gpuDevice);
  // Layers of different sizes, in one batch each way and call by call in turns.
  const layers = [[4, 3, 5, 5], [2, 8, 4], [64, 16]].map((shape) => {
    const length = shape.reduce((product, extent) => product * extent, 1);
    return {
      x: tensor(device, new Float32Array(length), shape),
      state: initBatchNorm(device, shape[1]),
    };
  });
  const step = (i: number) => {
    const launch = <R>(body: (d: typeof device) => R): R =>
      i % 2 ? batch(device, (joined) => body(joined as typeof device)) : body(device);
    const made = launch((d) =>
      layers.map(({ x, state }) => batchNormForward(state, x, { device: d }))
    );
    const back = launch((d) =>
      layers.map(({ x }, k) => batchNormBackward(made[k].saved, x, { device: d }))
    );
    release(device, [made, back], { keep: layers });
  };
  for (let i = 0; i < 10; i++) step(i);
  const { dispatches, submits, ...before } = asked();
  for (let i = 0; i < 10_000; i++) step(i);
  const { dispatches: all, submits: total, ...after } = asked();
  assert.deepEqual(after, before);
  // Moments, normalization, running statistics; sums, gradients: five a layer. Six submits call by call, two in batches.
  assert.equal(all - dispatches, 10_000 * 5 * layers.length);
  assert.equal(total - submits, 5_000 * (6 + 2));
  device[Symbol.dispose]();
  assert.equal(asked().bytes, 0);
});

Deno.test("webgpu: a step of 53 layers is two submits, and the same buffers every time", () => {
  const { gpuDevice, asked } = nullGpu();
  const device = webgpuDevice(gpuDevice);
  const layers = layersOf(device, 2, 32);
  assert.equal(layers.length, 53);
  const step = stepper(device, layers);
  for (let i = 0; i < 60; i++) step(true); // Until every layer has got the buffers that it had before.
  const before = asked();
  for (let i = 0; i < 20; i++) step(true);
  const { dispatches, submits, ...after } = asked();
  assert.equal(after.buffers, before.buffers);
  assert.equal(after.bytes, before.bytes);
  assert.equal(after.bindGroups, before.bindGroups);
  assert.equal(submits - before.submits, 40);
  assert.equal(dispatches - before.dispatches, 20 * 53 * 5);
});
