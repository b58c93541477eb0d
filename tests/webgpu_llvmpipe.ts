/**
 * Mesa's llvmpipe compiles a kernel anew for each set of parameters that it is launched with: it takes those that loops and
 * branches depend on for constants. With windows or random shapes that was most of what a test took, and the same training step
 * was put together again at each launch, only to be found on the disk. It gives that up for good with a pipeline that is
 * launched while its uniform buffer is the one of the launch before, which it then finds not worth it (Mesa 22.3,
 * update_inline_shader_state in lvp_execute.c). So here each pipeline's first launch is one of no workgroup, after that of an
 * empty shader with the same bind groups. Elsewhere it would do nothing.
 */

/** What is bound before the first launches of pipelines with the same bindings. */
interface First {
  readonly pipeline: GPUComputePipeline;
  readonly groups: readonly (readonly [group: GPUBindGroup, offsets: readonly number[]])[];
}

/** Bytes that are bound: the library's parameters have as many, and any storage buffer may begin at a multiple of them. */
const BYTES = 256;
const EMPTY = "@compute @workgroup_size(1) fn main() {}";

/** Whether an adapter is llvmpipe. */
export function isLlvmpipe({ info }: GPUAdapter): boolean {
  return info?.description.includes("llvmpipe") ?? false;
}

/** Makes a GPUDevice compile each pipeline once; all with a layout of their own are left alone. */
export function compileOnce(gpuDevice: GPUDevice): void {
  const entriesOf = new WeakMap<GPUBindGroupLayout, GPUBindGroupLayoutEntry[]>();
  const layoutsOf = new WeakMap<GPUPipelineLayout, GPUBindGroupLayout[]>();
  const pending = new WeakMap<GPUComputePipeline, GPUPipelineLayout>();
  const known = new Map<string, First>();
  const [createBindGroupLayout, createPipelineLayout, createComputePipeline, createCommandEncoder] =
    [
      gpuDevice.createBindGroupLayout.bind(gpuDevice),
      gpuDevice.createPipelineLayout.bind(gpuDevice),
      gpuDevice.createComputePipeline.bind(gpuDevice),
      gpuDevice.createCommandEncoder.bind(gpuDevice),
    ];
  const buffers = new Map<GPUBufferBindingType, GPUBuffer>();
  /** One for each way to bind it, which may not be mixed: each binding has its own part. */
  const bufferFor = (type: GPUBufferBindingType): GPUBuffer => {
    const usage = type === "uniform" ? 0x40 : 0x80;
    const buffer = buffers.get(type) ?? gpuDevice.createBuffer({ size: 64 * BYTES, usage });
    buffers.set(type, buffer);
    return buffer;
  };
  const bound = (layout: GPUBindGroupLayout): First["groups"][number] => {
    const described = entriesOf.get(layout)!;
    const entries = described.map(({ binding, buffer }) => ({
      binding,
      resource: {
        buffer: bufferFor(buffer?.type ?? "uniform"),
        ...{ offset: binding * BYTES, size: BYTES },
      },
    }));
    const offsets = described.filter(({ buffer }) => buffer?.hasDynamicOffset).map(() => 0);
    return [gpuDevice.createBindGroup({ layout, entries }), offsets];
  };
  const firstOf = (layout: GPUPipelineLayout): First => {
    const layouts = layoutsOf.get(layout)!;
    const key = JSON.stringify(layouts.map((layout) => entriesOf.get(layout)));
    const first = known.get(key) ?? {
      pipeline: createComputePipeline({
        layout,
        compute: { module: gpuDevice.createShaderModule({ code: EMPTY }), entryPoint: "main" },
      }),
      groups: layouts.map(bound),
    };
    known.set(key, first);
    return first;
  };
  const watchPass = (pass: GPUComputePassEncoder): GPUComputePassEncoder => {
    const setPipeline = pass.setPipeline.bind(pass);
    return own(pass, "setPipeline", (pipeline) => {
      const layout = pending.get(pipeline);
      pending.delete(pipeline);
      if (layout !== undefined) {
        const first = firstOf(layout);
        setPipeline(first.pipeline);
        first.groups.forEach(([group, offsets], i) => pass.setBindGroup(i, group, [...offsets]));
        pass.dispatchWorkgroups(0);
        setPipeline(pipeline);
        pass.dispatchWorkgroups(0);
      }
      setPipeline(pipeline);
    });
  };
  own(gpuDevice, "createBindGroupLayout", (descriptor) => {
    const made = createBindGroupLayout(descriptor);
    entriesOf.set(made, [...descriptor.entries]);
    return made;
  });
  own(gpuDevice, "createPipelineLayout", (descriptor) => {
    const made = createPipelineLayout(descriptor);
    layoutsOf.set(made, [...descriptor.bindGroupLayouts] as GPUBindGroupLayout[]);
    return made;
  });
  own(gpuDevice, "createComputePipeline", (descriptor) => {
    const made = createComputePipeline(descriptor);
    if (descriptor.layout !== "auto") pending.set(made, descriptor.layout);
    return made;
  });
  own(gpuDevice, "createCommandEncoder", (descriptor) => {
    const encoder = createCommandEncoder(descriptor);
    const beginComputePass = encoder.beginComputePass.bind(encoder);
    return own(encoder, "beginComputePass", (pass) => watchPass(beginComputePass(pass)));
  });
}

/** Gives an object a method of its own; configurable, since a Proxy must show any other property as it is. */
function own<T extends object, K extends keyof T>(object: T, name: K, value: T[K]): T {
  return Object.defineProperty(object, name, { configurable: true, value });
}
