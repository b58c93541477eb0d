/**
 * GPUDevices for tests: one after the other takes the same, which has compiled what those before it asked for. To open a
 * GPUDevice and to compile kernels is most of what tests of WebGPU take on a software adapter.
 */

import { compileOnce, isLlvmpipe } from "./webgpu_llvmpipe.ts";

/** A GPUDevice, as long as a test has it. */
export interface Lent {
  readonly gpuDevice: GPUDevice;
  /** Leaves it to the next test, unless this one has ended it. */
  readonly giveBack: () => void;
}

/** What no test has at present, by implementation and kind. */
const idle = new WeakMap<GPU, Map<string, GPUDevice[]>>();

/**
 * Lends a GPUDevice: one that nobody has, or else a new one.
 *
 * @param everything with the adapter's storage buffers and shader-f16, or with what every GPUDevice has
 */
export async function lend(gpu: GPU, everything: boolean): Promise<Lent> {
  const kinds = idle.get(gpu) ?? new Map<string, GPUDevice[]>();
  idle.set(gpu, kinds);
  const kind = `${everything}`;
  const known = kinds.get(kind) ?? [];
  kinds.set(kind, known);
  const gpuDevice = known.pop() ?? await request(gpu, everything);
  return {
    gpuDevice,
    giveBack: () => {
      if (!ended.has(gpuDevice) && !known.includes(gpuDevice)) known.push(gpuDevice);
    },
  };
}

/** Ends those that nobody has: a driver may crash where a process ends before its GPUDevices have. */
export function endIdle(gpu: GPU): void {
  for (const known of idle.get(gpu)?.values() ?? []) {
    for (const gpuDevice of known.splice(0)) gpuDevice.destroy();
  }
}

/** Those that a test has destroyed. */
const ended = new WeakSet<GPUDevice>();

async function request(gpu: GPU, everything: boolean): Promise<GPUDevice> {
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error("this machine has no WebGPU adapter");
  const { maxStorageBuffersPerShaderStage } = adapter.limits;
  const gpuDevice = await adapter.requestDevice(
    everything
      ? {
        requiredFeatures: adapter.features.has("shader-f16") ? ["shader-f16"] : [],
        requiredLimits: { maxStorageBuffersPerShaderStage },
      }
      : {},
  );
  if (isLlvmpipe(adapter)) compileOnce(gpuDevice);
  remember(gpuDevice);
  return gpuDevice;
}

/**
 * Makes a GPUDevice compile each text once, whoever asks: a handle keeps its own pipelines only as long as it lives. All with a
 * layout of their own are left alone, since no other bind group fits those.
 */
function remember(gpuDevice: GPUDevice): void {
  const modules = new Map<string, GPUShaderModule>();
  const pipelines = new Map<GPUShaderModule, GPUComputePipeline>();
  const createShaderModule = gpuDevice.createShaderModule.bind(gpuDevice);
  const createComputePipeline = gpuDevice.createComputePipeline.bind(gpuDevice);
  const destroy = gpuDevice.destroy.bind(gpuDevice);
  // Configurable, since what counts calls stands before it: a Proxy must show any other property as it is.
  Object.defineProperties(gpuDevice, {
    createShaderModule: {
      configurable: true,
      value: (descriptor: GPUShaderModuleDescriptor) => {
        const made = modules.get(descriptor.code) ?? createShaderModule(descriptor);
        modules.set(descriptor.code, made);
        return made;
      },
    },
    createComputePipeline: {
      configurable: true,
      value: (descriptor: GPUComputePipelineDescriptor) => {
        if (descriptor.layout === "auto") return createComputePipeline(descriptor);
        const { module } = descriptor.compute;
        const made = pipelines.get(module) ?? createComputePipeline(descriptor);
        pipelines.set(module, made);
        return made;
      },
    },
    destroy: {
      configurable: true,
      value: () => {
        ended.add(gpuDevice);
        destroy();
      },
    },
  });
}
