/**
 * Whether a GPUDevice's subgroups are of use, which is found out by trying.
 *
 * Two compilers want two spellings, and WGSL does not say that the invocations of a subgroup are neighbours, which the kernels
 * rely on. So a small kernel is compiled and run, and what it gives is looked at.
 *
 * @module
 */

import type { Subgroups } from "../wgsl/tiles.ts";
import { USAGE } from "./memory.ts";

const INVOCATIONS = 256;
/** GPUMapMode.READ. */
const MAP_READ = 0x1;

/** Writes 1 where an invocation stands where it should among its neighbours, and hears from the right one of them. */
const PROBE = `
@group(0) @binding(0) var<storage, read_write> right: array<u32>;

@compute @workgroup_size(${INVOCATIONS})
fn main(
  @builtin(local_invocation_index) thread: u32,
  @builtin(subgroup_invocation_id) member: u32,
  @builtin(subgroup_size) members: u32,
) {
  var sum = thread;
  for (var step = 1u; step < members; step *= 2u) { sum += subgroupShuffleXor(sum, step); }
  let first = thread - thread % members;
  let expected = members * first + members * (members - 1u) / 2u;
  right[thread] = select(0u, 1u, member == thread % members && sum == expected);
}
`;

/** Tries both spellings, and says which works, or "none"; nothing is tried without the feature `subgroups`. */
export async function probeSubgroups(gpuDevice: GPUDevice): Promise<Subgroups> {
  if (!gpuDevice.features.has("subgroups")) return "none";
  for (const spelling of ["declared", "implied"] as const) {
    const code = spelling === "declared" ? `enable subgroups;\n${PROBE}` : PROBE;
    if (await runs(gpuDevice, code)) return spelling;
  }
  return "none";
}

async function runs(gpuDevice: GPUDevice, code: string): Promise<boolean> {
  gpuDevice.pushErrorScope("validation");
  gpuDevice.pushErrorScope("internal");
  const bytes = 4 * INVOCATIONS;
  const storage = USAGE.storage | USAGE.copySource;
  const buffers = [storage, USAGE.mapRead | USAGE.copyTarget].map((usage) =>
    gpuDevice.createBuffer({ size: bytes, usage })
  );
  const [right, copy] = buffers;
  try {
    let submitted = true;
    try {
      const module = gpuDevice.createShaderModule({ code });
      const pipeline = gpuDevice.createComputePipeline({
        layout: "auto",
        compute: { module, entryPoint: "main" },
      });
      const encoder = gpuDevice.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      const entries = [{ binding: 0, resource: { buffer: right } }];
      const layout = pipeline.getBindGroupLayout(0);
      pass.setBindGroup(0, gpuDevice.createBindGroup({ layout, entries }));
      pass.dispatchWorkgroups(1);
      pass.end();
      encoder.copyBufferToBuffer(right, 0, copy, 0, bytes);
      gpuDevice.queue.submit([encoder.finish()]);
    } catch {
      submitted = false; // Some implementations throw what others report.
    }
    const errors = [await gpuDevice.popErrorScope(), await gpuDevice.popErrorScope()];
    if (!submitted || errors.some(Boolean)) return false;
    await copy.mapAsync(MAP_READ);
    return new Uint32Array(copy.getMappedRange()).every((found) => found === 1);
  } finally {
    for (const buffer of buffers) buffer.destroy();
  }
}
