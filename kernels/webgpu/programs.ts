/** What WebGPU compiles and binds for us, each once: pipelines for good, bind groups as long as their buffers live. */

import { type Kernel, PARAMETER_BYTES } from "../wgsl/kernel.ts";
import type { Failures } from "./failures.ts";
import type { Block } from "./memory.ts";

/** A part of a block. */
export interface Range {
  readonly block: Block;
  readonly offset: number;
  readonly size: number;
}

/** GPUShaderStage.COMPUTE, by number like the usages of buffers. */
const COMPUTE = 0x4;

/** Makes a kernel by its function and options; the same one for the same, so that its text is put together once. */
export type Kernels = <O extends object>(make: (options: O) => Kernel, options: O) => Kernel;

/** Remembers the kernels of a device. */
export function createKernels(): Kernels {
  const known = new Map<unknown, Map<string, Kernel>>();
  return (make, options) =>
    remembered(
      remembered(known, make, () => new Map<string, Kernel>()),
      Object.values(options).join(" "),
      () => make(options),
    );
}

/** A compiled kernel. */
export interface Program {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** Access of each binding: two kernels of one signature share a layout. */
  readonly signature: string;
}

/** Pipelines of a device, each compiled once; `failures` hears of those that cannot be. */
export function createPrograms(gpuDevice: GPUDevice, failures: Failures) {
  const layouts = new Map<string, GPUBindGroupLayout>();
  const programs = new Map<string, Program>();
  const layoutOf = (label: string, buffers: readonly GPUBufferBindingLayout[]) =>
    gpuDevice.createBindGroupLayout({
      label: `syncbn ${label}`,
      entries: buffers.map((buffer, binding) => ({ binding, visibility: COMPUTE, buffer })),
    });
  const parametersLayout = layoutOf("parameters", [
    { type: "uniform", hasDynamicOffset: true, minBindingSize: PARAMETER_BYTES },
  ]);
  const compile = ({ name, code, storage }: Kernel): Program => {
    const types = Object.values(storage).map(({ access }) =>
      access === "read" ? "read-only-storage" : "storage"
    );
    const signature = types.join(",");
    const layout = remembered(
      layouts,
      signature,
      () => layoutOf(signature, types.map((type) => ({ type }))),
    );
    const label = `syncbn ${name}`;
    const pipeline = failures.guard(
      `compile ${name}`,
      ["internal"],
      () =>
        gpuDevice.createComputePipeline({
          label,
          layout: gpuDevice.createPipelineLayout({ bindGroupLayouts: [layout, parametersLayout] }),
          compute: { module: gpuDevice.createShaderModule({ label, code }), entryPoint: "main" },
        }),
    );
    return { layout, signature, pipeline };
  };
  const of = (kernel: Kernel): Program => remembered(programs, kernel.name, () => compile(kernel));
  return Object.freeze({ of, parametersLayout });
}

function remembered<K, V>(known: Map<K, V>, key: K, make: () => V): V {
  const found = known.get(key);
  if (found !== undefined) return found;
  const made = make();
  known.set(key, made);
  return made;
}

/** Bind groups of a device. */
export interface BindGroups {
  /** The bind group of these ranges; layouts of one signature are one. */
  readonly of: (
    layout: GPUBindGroupLayout,
    signature: string,
    ranges: readonly Range[],
  ) => GPUBindGroup;
  /** Forgets every bind group that binds a block. */
  readonly forget: (block: Block) => void;
}

/** Bind groups kept at most. */
const MOST_GROUPS = 4096;

/** Bind groups by what they bind; each goes when one of its buffers does, since it would keep that alive. */
export function createBindGroups(gpuDevice: GPUDevice): BindGroups {
  interface Group {
    readonly group: GPUBindGroup;
    readonly blocks: readonly Block[];
  }
  const groups = new Map<string, Group>(); // The least recently used first.
  const keysOf = new Map<Block, Set<string>>();
  const drop = (key: string): void => {
    for (const block of groups.get(key)?.blocks ?? []) {
      const keys = keysOf.get(block);
      keys?.delete(key);
      if (keys?.size === 0) keysOf.delete(block);
    }
    groups.delete(key);
  };
  const of = (
    layout: GPUBindGroupLayout,
    signature: string,
    ranges: readonly Range[],
  ): GPUBindGroup => {
    const key = ranges.reduce(
      (text, { block, offset, size }) => `${text} ${block.id}:${offset}:${size}`,
      signature,
    );
    const known = groups.get(key);
    if (known) {
      groups.delete(key);
      groups.set(key, known);
      return known.group;
    }
    const group = gpuDevice.createBindGroup({
      layout,
      entries: ranges.map(({ block: { buffer }, offset, size }, binding) => ({
        binding,
        resource: { buffer, offset, size },
      })),
    });
    const blocks = ranges.map(({ block }) => block);
    groups.set(key, { group, blocks });
    for (const block of blocks) {
      remembered(keysOf, block, () => new Set<string>()).add(key);
    }
    const [oldest] = groups.keys();
    if (groups.size > MOST_GROUPS) drop(oldest);
    return group;
  };
  const forget = (block: Block): void => [...keysOf.get(block) ?? []].forEach(drop);
  return Object.freeze({ of, forget });
}
