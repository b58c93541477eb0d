/**
 * How the demo's own kernels come to the queue that they share with the library's.
 *
 * @module
 */

import type { GpuBinding } from "../kernels/webgpu_device.ts";
import type { Buffers } from "./webgpu_buffers.ts";
import type { Kernel } from "./wgsl/kernel.ts";

/** One kernel, and what it works on. */
export interface Launch {
  readonly kernel: Kernel;
  /** What is read, in the order of the bindings; parts may begin at any element. */
  readonly inputs: readonly GpuBinding[];
  /** What is written. */
  readonly outputs: readonly GpuBinding[];
  /** The parameters after those that say where the inputs begin. */
  readonly parameters: Uint32Array;
  /** Number of workgroups; 0 launches nothing. */
  readonly workgroups: number;
}

/** The way to the GPU. */
export interface Launches {
  /** Launches a kernel at the next submit, after everything added before. */
  readonly add: (launch: Launch) => void;
  /** Submits what waits, in one go. */
  readonly submit: () => void;
  /** Submits what waits, then reads vectors back, in one go. */
  readonly read: (vectors: readonly GpuBinding[]) => Promise<readonly Float32Array[]>;
}

/** Bytes of a kernel's parameters; every device can bind uniforms from multiples of this on. */
const PARAMETER_BYTES = 256;
const PARAMETER_WORDS = PARAMETER_BYTES / 4;

/**
 * Makes the way to a GPUDevice's queue.
 *
 * @param gpuDevice the device
 * @param buffers where parameters and readbacks find room
 * @returns its launches
 */
export function launchesOn(gpuDevice: GPUDevice, buffers: Buffers): Launches {
  const { queue, limits } = gpuDevice;
  const pipelines = new Map<Kernel, GPUComputePipeline>();
  const waiting: Launch[] = [];
  const reports: Promise<GPUError | null>[] = [];

  const pipelineOf = (kernel: Kernel): GPUComputePipeline => {
    const { name: label, code } = kernel;
    const pipeline = pipelines.get(kernel) ?? gpuDevice.createComputePipeline({
      label,
      layout: "auto",
      compute: { module: gpuDevice.createShaderModule({ label, code }) },
    });
    pipelines.set(kernel, pipeline);
    return pipeline;
  };

  /** Writes the parameters of all launches side by side. */
  const upload = (launches: readonly Launch[]): GPUBuffer => {
    const values = new Uint32Array(launches.length * PARAMETER_WORDS);
    launches.forEach(({ inputs, parameters }, i) => {
      values.set(inputs.map((input) => aligned(input, limits).first), i * PARAMETER_WORDS);
      values.set(parameters, i * PARAMETER_WORDS + inputs.length);
    });
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    const buffer = buffers.take(values.byteLength, usage);
    queue.writeBuffer(buffer, 0, values);
    return buffer;
  };

  const encode = (pass: GPUComputePassEncoder, launch: Launch, uniform: GpuBinding): void => {
    const { kernel, inputs, outputs, workgroups } = launch;
    const pipeline = pipelineOf(kernel);
    const resources = [
      uniform,
      ...inputs.map((input) => aligned(input, limits).binding),
      ...outputs,
    ];
    const group = gpuDevice.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: resources.map((resource, binding) => ({ binding, resource })),
    });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    // Large grids go into the second dimension; a workgroup past the end finds nothing to do.
    const wide = Math.min(workgroups, limits.maxComputeWorkgroupsPerDimension);
    pass.dispatchWorkgroups(wide, Math.ceil(workgroups / wide));
  };

  const submit = (finish: (encoder: GPUCommandEncoder) => void): void => {
    // What a GPU has against a kernel it says later, and `read` asks before it believes a number.
    gpuDevice.pushErrorScope("validation");
    const encoder = gpuDevice.createCommandEncoder();
    const launches = waiting.splice(0);
    if (launches.length > 0) {
      const buffer = upload(launches);
      const pass = encoder.beginComputePass();
      launches.forEach((launch, i) =>
        encode(pass, launch, { buffer, offset: i * PARAMETER_BYTES, size: PARAMETER_BYTES })
      );
      pass.end();
      buffers.give(buffer);
    }
    finish(encoder);
    queue.submit([encoder.finish()]);
    reports.push(gpuDevice.popErrorScope());
  };

  const read = async (vectors: readonly GpuBinding[]): Promise<readonly Float32Array[]> => {
    const ends: number[] = [];
    for (const { size } of vectors) ends.push((ends.at(-1) ?? 0) + size);
    const bytes = ends.at(-1) ?? 0;
    const staging = buffers.take(bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
    submit((encoder) =>
      vectors.forEach(({ buffer, offset, size }, i) =>
        encoder.copyBufferToBuffer(buffer, offset, staging, ends[i] - size, size)
      )
    );
    const mapped = staging.mapAsync(GPUMapMode.READ, 0, bytes);
    const [said] = await Promise.all([Promise.all(reports.splice(0)), mapped]);
    const error = said.find((report) => report !== null);
    const values = new Float32Array(staging.getMappedRange(0, bytes).slice(0));
    staging.unmap();
    buffers.give(staging);
    if (error) throw new Error(`The GPU refused a kernel of the demo: ${error.message}`);
    return vectors.map(({ size }, i) => values.subarray((ends[i] - size) / 4, ends[i] / 4));
  };

  return Object.freeze<Launches>({
    add: (launch) => {
      if (launch.workgroups > 0) waiting.push(launch);
    },
    submit: () => {
      if (waiting.length > 0) submit(() => {});
    },
    read,
  });
}

/** What can be bound of a part of a buffer, and where in it the part begins, in elements. */
function aligned(
  { buffer, offset, size }: GpuBinding,
  limits: GPUSupportedLimits,
): { readonly binding: GpuBinding; readonly first: number } {
  const lead = offset % limits.minStorageBufferOffsetAlignment;
  // An empty input is bound, though never read: WebGPU has no empty bindings.
  const binding = { buffer, offset: offset - lead, size: Math.max(lead + size, 4) };
  return { binding, first: lead / 4 };
}
