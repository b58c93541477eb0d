/**
 * From launches to the queue: commands are data until their batch ends, then one encoder, one submit.
 *
 * So a body that throws has launched nothing, and a buffer that is freed meanwhile is not given out again before the
 * submit.
 */

import { type Deferred, deferred } from "../../lib/deferred.ts";
import { type Kernel, PARAMETER_BYTES, type Parameters } from "../wgsl/kernel.ts";
import type { Failures } from "./failures.ts";
import type { Block, Memory } from "./memory.ts";
import { createNudge } from "./nudge.ts";
import { type BindGroups, createPrograms, type Range } from "./programs.ts";

/** A batch, for the arrays that it makes: they outlive it, so it must hold nothing else. */
export interface Batch {
  /** Whether it has not been launched yet. */
  readonly open: boolean;
}

/** Where the launches of one batch are written down. */
export interface Recorder {
  /** The batch. */
  readonly batch: Batch;
  /** Launches a kernel: a range for each of its storage buffers, its parameters, a number of workgroups. */
  readonly dispatch: (
    kernel: Kernel,
    ranges: Readonly<Record<string, Range>>,
    parameters: Parameters,
    workgroups: number,
  ) => void;
  /** Reads the bytes of all ranges back, side by side, once everything before has been computed. */
  readonly readBack: (...ranges: Range[]) => Promise<ArrayBuffer>;
}

/** The way to the GPU. */
export interface Launches {
  /** Runs a body that writes launches down, then launches them in one submit; launches nothing if it throws. */
  readonly record: <T>(body: (recorder: Recorder) => T) => T;
  /** Waits for every readback that is under way, whatever comes of it. */
  readonly idle: () => Promise<void>;
}

interface Dispatch {
  readonly kernel: Kernel;
  readonly ranges: readonly Range[];
  readonly parameters: Uint32Array<ArrayBuffer>;
  readonly workgroups: number;
}

/** Ranges that are read back together: mapping a buffer takes as long whatever its size. */
interface Copy {
  readonly ranges: Range[];
  bytes: number;
  /** Settles when the copy is on the queue, with where it goes, or when it never will be. */
  readonly launched: Deferred<Block>;
  /** The bytes of all ranges, side by side. */
  readonly read: Promise<ArrayBuffer>;
}

/** Readbacks of a batch share one buffer up to this size: all of what goes to a wire, and no large tensors. */
const SHARED_BYTES = 1 << 20;

/** GPUMapMode.READ, by number like the usages. */
const MAP_READ = 0x1;

/** Makes the way to a device's queue. */
export function createLaunches(
  gpuDevice: GPUDevice,
  memory: Memory,
  groups: BindGroups,
  failures: Failures,
): Launches {
  const programs = createPrograms(gpuDevice, failures);
  const { queue } = gpuDevice;
  const reading = new Set<Promise<unknown>>();

  /** Writes the parameters of all dispatches side by side. */
  const upload = (dispatches: readonly Dispatch[]): Block => {
    const all = new Uint32Array(dispatches.length * PARAMETER_BYTES / 4);
    dispatches.forEach(({ parameters }, i) => all.set(parameters, i * PARAMETER_BYTES / 4));
    const block = memory.allocate(all.byteLength, "uniform");
    queue.writeBuffer(block.buffer, 0, all);
    return block;
  };
  const encode = (
    encoder: GPUCommandEncoder,
    dispatches: readonly Dispatch[],
    parameters: Block,
  ): void => {
    const pass = encoder.beginComputePass();
    const uniform = { block: parameters, offset: 0, size: PARAMETER_BYTES };
    const group = groups.of(programs.parametersLayout, "parameters", [uniform]);
    let current: GPUComputePipeline | undefined;
    dispatches.forEach(({ kernel, ranges, workgroups }, i) => {
      const { pipeline, layout, signature } = programs.of(kernel);
      if (pipeline !== current) pass.setPipeline(pipeline);
      current = pipeline;
      pass.setBindGroup(0, groups.of(layout, signature, ranges));
      pass.setBindGroup(1, group, [i * PARAMETER_BYTES]);
      // Large grids go into the second dimension; a workgroup past the end finds nothing to do.
      const wide = Math.min(workgroups, gpuDevice.limits.maxComputeWorkgroupsPerDimension);
      pass.dispatchWorkgroups(wide, Math.ceil(workgroups / wide));
    });
    pass.end();
  };
  const submit = (dispatches: readonly Dispatch[], copies: readonly Copy[]): void => {
    if (dispatches.length + copies.length === 0) return;
    failures.guard("run the launched kernels", [], () => {
      const encoder = gpuDevice.createCommandEncoder();
      const parameters = dispatches.length > 0 ? upload(dispatches) : null;
      const targets: Block[] = [];
      try {
        if (parameters) encode(encoder, dispatches, parameters);
        for (const { ranges, bytes } of copies) {
          const to = memory.allocate(bytes, "readback");
          targets.push(to);
          let at = 0;
          for (const { block, offset, size } of ranges) {
            encoder.copyBufferToBuffer(block.buffer, offset, to.buffer, at, size);
            at += size;
          }
        }
        queue.submit([encoder.finish()]);
        copies.forEach(({ launched }, i) => launched.resolve(targets[i]));
      } catch (error) {
        for (const to of targets) memory.release(to);
        throw error;
      } finally {
        if (parameters) memory.release(parameters);
      }
    });
  };

  const nudged = createNudge(queue);
  /** Maps what was copied. */
  const map = async (copy: Promise<Block>, bytesOf: () => number): Promise<ArrayBuffer> => {
    const to = await copy;
    try {
      const bytes = await mapped(to.buffer, bytesOf(), nudged).catch(async (cause) => {
        throw await failures.explain(cause);
      });
      await failures.reported();
      failures.check();
      return bytes;
    } finally {
      memory.release(to);
    }
  };
  const newCopy = (): Copy => {
    const launched = deferred<Block>();
    const copy: Copy = {
      ...{ ranges: [], bytes: 0, launched },
      read: map(launched.promise, () => copy.bytes),
    };
    const over: Promise<unknown> = copy.read.catch(() => {}).then(() => reading.delete(over));
    reading.add(over);
    return copy;
  };

  const record = <T>(body: (recorder: Recorder) => T): T => {
    const dispatches: Dispatch[] = [];
    const copies: Copy[] = [];
    const batch = { open: true };
    const letGo = memory.hold();
    const recorder: Recorder = Object.freeze<Recorder>({
      batch,
      dispatch: (kernel, named, values, workgroups) => {
        const ranges = Object.keys(kernel.storage).map((name) => named[name]);
        dispatches.push({ kernel, ranges, parameters: kernel.pack(values), workgroups });
      },
      readBack: (...ranges) => {
        const bytes = ranges.reduce((total, { size }) => total + size, 0);
        let copy = copies.at(-1);
        if (!copy || copy.bytes + bytes > SHARED_BYTES) copies.push(copy = newCopy());
        const from = copy.bytes;
        copy.ranges.push(...ranges);
        copy.bytes += bytes;
        const part = copy.read.then((all) =>
          all.byteLength === bytes ? all : all.slice(from, from + bytes)
        );
        // The caller hears of a failure where it awaits; one that never does must not crash.
        part.catch(() => {});
        return part;
      },
    });
    try {
      const result = body(recorder);
      batch.open = false;
      submit(dispatches, copies);
      return result;
    } catch (error) {
      for (const { launched } of copies) launched.reject(error);
      throw error;
    } finally {
      batch.open = false;
      letGo();
    }
  };
  const idle = async (): Promise<void> => {
    while (reading.size > 0) await Promise.all(reading);
  };
  return Object.freeze({ record, idle });
}

async function mapped(
  buffer: GPUBuffer,
  size: number,
  nudged: ReturnType<typeof createNudge>,
): Promise<ArrayBuffer> {
  await nudged(buffer.mapAsync(MAP_READ, 0, size));
  const bytes = buffer.getMappedRange(0, size).slice(0);
  buffer.unmap();
  return bytes;
}
