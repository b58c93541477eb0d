/** Plain copies by a GPU: what the others are held against. */

import type { Copy } from "./measured.ts";

/** Copies of so many bytes: four independent loads of 16 bytes in flight, as in our kernels. */
export function copiesOf(gpuDevice: GPUDevice, bytes: number) {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const [source, target] = [0, 1].map(() => gpuDevice.createBuffer({ size: bytes, usage }));
  const module = gpuDevice.createShaderModule({
    code: `
@group(0) @binding(0) var<storage, read> source: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4f>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let i = id.x + id.y * grid.x * 256u;
  let quarter = (arrayLength(&source) + 3u) / 4u;
  if (i >= quarter) { return; }
  let a = source[i];
  let b = source[min(i + quarter, arrayLength(&source) - 1u)];
  let c = source[min(i + 2u * quarter, arrayLength(&source) - 1u)];
  let d = source[min(i + 3u * quarter, arrayLength(&source) - 1u)];
  copied[i] = a;
  if (i + quarter < arrayLength(&source)) { copied[i + quarter] = b; }
  if (i + 2u * quarter < arrayLength(&source)) { copied[i + 2u * quarter] = c; }
  if (i + 3u * quarter < arrayLength(&source)) { copied[i + 3u * quarter] = d; }
}`,
  });
  const pipeline = gpuDevice.createComputePipeline({
    layout: "auto",
    compute: { module, entryPoint: "main" },
  });
  // A binding is smaller than a buffer may be: what does not fit is copied by the queue alone.
  const bound = Math.min(
    bytes,
    Math.floor(gpuDevice.limits.maxStorageBufferBindingSize / 16) * 16,
  );
  const groups = Array.from({ length: Math.ceil(bytes / bound) }, (_, i) => {
    const offset = Math.floor(i * bound / 256) * 256;
    const size = Math.min(bound, bytes - offset);
    const entries = [source, target].map((buffer, binding) => ({
      binding,
      resource: { buffer, offset, size },
    }));
    const layout = pipeline.getBindGroupLayout(0);
    return { size, group: gpuDevice.createBindGroup({ layout, entries }) };
  });
  const submit = (encode: (encoder: GPUCommandEncoder) => void) => () => {
    const encoder = gpuDevice.createCommandEncoder();
    encode(encoder);
    gpuDevice.queue.submit([encoder.finish()]);
  };
  return {
    runs: {
      copy: submit((encoder) => encoder.copyBufferToBuffer(source, 0, target, 0, bytes)),
      "copy kernel": submit((encoder) => {
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        for (const { size, group } of groups) {
          pass.setBindGroup(0, group);
          const workgroups = Math.ceil(size / 64 / 256);
          const wide = Math.min(workgroups, 65_535);
          pass.dispatchWorkgroups(wide, Math.ceil(workgroups / wide));
        }
        pass.end();
      }),
    } satisfies Record<Copy, () => void>,
    destroy: () => {
      source.destroy();
      target.destroy();
    },
  };
}
