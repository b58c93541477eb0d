/**
 * A GPUDevice that accepts everything and does nothing, so that what is timed is our own JavaScript.
 *
 * @module
 */

/** What was asked of it. */
export interface Asked {
  readonly buffers: number;
  readonly bindGroups: number;
  readonly pipelines: number;
  readonly dispatches: number;
  readonly submits: number;
  /** Bytes of the buffers that were not destroyed. */
  readonly bytes: number;
}

/** Makes one, and what tells how much was asked of it. */
export function nullGpu(): { readonly gpuDevice: GPUDevice; readonly asked: () => Asked } {
  const asked = { buffers: 0, bindGroups: 0, pipelines: 0, dispatches: 0, submits: 0, bytes: 0 };
  const nothing = () => {};
  const pass = {
    setPipeline: nothing,
    setBindGroup: nothing,
    dispatchWorkgroups: () => void asked.dispatches++,
    end: nothing,
  };
  const encoder = {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    finish: () => ({}),
  };
  const gpuDevice = {
    limits: {
      maxBufferSize: 2 ** 34,
      maxStorageBufferBindingSize: 2 ** 32 - 4,
      maxStorageBuffersPerShaderStage: 16,
      maxComputeWorkgroupsPerDimension: 65_535,
      minStorageBufferOffsetAlignment: 256,
    },
    features: new Set(["shader-f16"]),
    adapterInfo: { description: "nothing", isFallbackAdapter: false },
    lost: new Promise<GPUDeviceLostInfo>(nothing),
    addEventListener: nothing,
    removeEventListener: nothing,
    pushErrorScope: nothing,
    popErrorScope: () => Promise.resolve(null),
    queue: {
      writeBuffer: nothing,
      submit: () => void asked.submits++,
      onSubmittedWorkDone: () => Promise.resolve(),
    },
    createBuffer: ({ size, usage }: GPUBufferDescriptor) => {
      asked.buffers++;
      asked.bytes += size;
      return {
        ...{ size, usage },
        destroy: () => void (asked.bytes -= size),
        mapAsync: () => Promise.resolve(),
        getMappedRange: (_: number, bytes: number) => new ArrayBuffer(bytes),
        unmap: nothing,
      };
    },
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createShaderModule: () => ({}),
    createComputePipeline: () => (asked.pipelines++, {}),
    createBindGroup: () => (asked.bindGroups++, {}),
    createCommandEncoder: () => encoder,
    destroy: nothing,
  };
  return { gpuDevice: gpuDevice as unknown as GPUDevice, asked: () => ({ ...asked }) };
}
