/** Who is measured: the reference device, and a device on each implementation of WebGPU that is at hand. */

import { DeviceError, type ReferenceArray, referenceDevice } from "../mod.ts";
import {
  type OwnedWebGpuDevice,
  requestWebGpuDevice,
  type WebGpuArray,
} from "../kernels/webgpu_device.ts";
import { DAWN, loadDawn } from "../tests/load_dawn.ts";
import { CPU_SHAPES, GPU_SHAPES, SOFTWARE_GPU_SHAPES } from "./batches.ts";
import type { Subject } from "./rows.ts";

/** The reference device; the limit is what one thread copies. */
export function referenceSubject(): Subject<ReferenceArray> {
  return {
    device: referenceDevice(),
    ulps: 1,
    shapes: CPU_SHAPES,
    rounds: 7,
    copy: (bytes) => {
      const [source, target] = [new Float32Array(bytes / 4), new Float32Array(bytes / 4)];
      return { run: () => target.set(source), [Symbol.dispose]: () => {} };
    },
  };
}

/** A device on WebGPU. */
export interface WebGpuSubject extends Subject<WebGpuArray>, AsyncDisposable {
  readonly device: OwnedWebGpuDevice;
  /** Whose WebGPU it is. */
  readonly implementation: string;
}

/** An implementation of WebGPU, or the reason why it is not measured. */
export type Candidate =
  | { readonly implementation: string; readonly subject: WebGpuSubject }
  | { readonly implementation: string; readonly missing: string };

/** Every implementation that can be tried from Deno. */
export async function webgpuCandidates(): Promise<Candidate[]> {
  return [
    await candidate(`Deno ${Deno.version.deno}`, () => Promise.resolve(navigator.gpu)),
    await candidate(`Dawn (${DAWN})`, async () => {
      const { state } = await Deno.permissions.query({ name: "ffi" });
      if (state !== "granted") throw new Deno.errors.NotCapable("it needs --allow-ffi");
      return await loadDawn();
    }),
  ];
}

async function candidate(implementation: string, load: () => Promise<GPU>): Promise<Candidate> {
  try {
    const gpu = await load();
    return { implementation, subject: await webgpuSubject(gpu, implementation) };
  } catch (error) {
    const expected = error instanceof Deno.errors.NotCapable ||
      error instanceof DeviceError && error.code === "unsupported";
    if (!expected) throw error;
    return { implementation, missing: error.message };
  }
}

async function webgpuSubject(gpu: GPU, implementation: string): Promise<WebGpuSubject> {
  const device = await requestWebGpuDevice({ gpu });
  const { gpuDevice } = device;
  const { queue } = gpuDevice;
  const software = device.info.isFallbackAdapter;
  return {
    implementation,
    device,
    ulps: 8, // As in the tests: WGSL's divisions and inverse roots.
    shapes: software ? SOFTWARE_GPU_SHAPES : GPU_SHAPES,
    rounds: software ? 3 : 7,
    settle: () => queue.onSubmittedWorkDone(),
    copy: (size) => {
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
      const [source, target] = [0, 1].map(() => gpuDevice.createBuffer({ size, usage }));
      return {
        run: () => {
          const encoder = gpuDevice.createCommandEncoder();
          encoder.copyBufferToBuffer(source, 0, target, 0, size);
          queue.submit([encoder.finish()]);
        },
        [Symbol.dispose]: () => {
          source.destroy();
          target.destroy();
        },
      };
    },
    // The implementation must outlive its device: Dawn's ends when it is collected.
    [Symbol.asyncDispose]: async () => {
      await device[Symbol.asyncDispose]();
      void gpu;
    },
  };
}
