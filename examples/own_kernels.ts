// A linear layer of your own under syncbn, on one GPUDevice: `deno run examples/own_kernels.ts`. Two replicas with 32
// points each learn which coordinate is larger. Your kernels and the library's take turns; no buffer is copied.

import * as bn from "../mod.ts";
import * as webgpu from "../kernels/webgpu_device.ts";

const code = `
@group(0) @binding(0) var<storage, read> x: array<vec2f>;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
@compute @workgroup_size(32) fn linear(@builtin(local_invocation_index) i: u32) {
  result[i] = dot(x[i], vec2f(factors[0], factors[1]));
}
@compute @workgroup_size(2) fn gradient(@builtin(local_invocation_index) i: u32) {
  var total = 0.0;
  for (var row = 0u; row < arrayLength(&x); row++) { total += x[row][i] * factors[row]; }
  result[i] = total;
}`;

await using device = await webgpu.requestWebGpuDevice();
const { gpuDevice } = device;
const module = gpuDevice.createShaderModule({ code });
const [linear, gradient] = ["linear", "gradient"].map((entryPoint) =>
  gpuDevice.createComputePipeline({ layout: "auto", compute: { module, entryPoint } })
);
function launch(pipeline: GPUComputePipeline, ...resources: GPUBufferBinding[]): void {
  const entries = resources.map((resource, binding) => ({ binding, resource }));
  const layout = pipeline.getBindGroupLayout(0);
  const encoder = gpuDevice.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, gpuDevice.createBindGroup({ layout, entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  gpuDevice.queue.submit([encoder.finish()]);
}
const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
const [weight] = await bn.runRanks(2, async (group) => {
  const x = Float32Array.from({ length: 64 }, (_, i) => Math.sin(7 * i * i + group.rank));
  const larger = Float32Array.from({ length: 32 }, (_, i) => Math.sign(x[2 * i] - x[2 * i + 1]));
  const [points, target, one] = [x, larger, Float32Array.of(1, 1)].map((v) => device.upload(v));
  const [h, part] = [128, 8].map((size) => ({ buffer: gpuDevice.createBuffer({ size, usage }) }));
  let model = { weight: one, state: bn.initBatchNorm(device, 1) };
  for (let step = 0; step < 40; step++) {
    // A region frees what was made in it and not returned; nothing borrows h any more when it is written again.
    const next = await bn.region(device, async (scope) => {
      launch(linear, webgpu.unwrap(points), webgpu.unwrap(model.weight), h); // h = x * weight
      const input = webgpu.wrap(scope, h, [32, 1]);
      const effects = { device: scope, group };
      const forward = await bn.syncBatchNormForward(model.state, input, effects);
      const error = bn.addScaled(scope, forward.output.data, target, -1);
      const gradOutput = { ...forward.output, data: error };
      const back = await bn.syncBatchNormBackward(forward.saved, gradOutput, effects);
      launch(gradient, webgpu.unwrap(points), webgpu.unwrap(back.gradInput), part);
      const local = Float64Array.from(await scope.download(webgpu.wrap(scope, part, [1, 2]).data));
      const slope = scope.upload(Float32Array.from(await group.allReduce(local, bn.sum)));
      return { weight: bn.addScaled(scope, model.weight, slope, -1 / 64), state: forward.state };
    });
    bn.release(device, model, { keep: next });
    model = next;
  }
  return await device.download(model.weight);
});
console.log(weight); // along (1, -1)
