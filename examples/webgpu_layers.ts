/**
 * The layers as WGSL kernels beside the library's own, on one GPUDevice: what they pass to each other stays in its buffer.
 *
 * Vectors are bindings: buffer, offset and size. `wrap` makes tensors of them for the library, `unwrap` makes vectors of
 * what the library returns; nothing is copied in either direction. Own kernels wait until the library needs their results
 * and are then submitted together. Both use one queue, so that the order of submits is the order of everything.
 *
 * @module
 */

import { type Device, region } from "../mod.ts";
import {
  type GpuBinding,
  unwrap,
  type WebGpuArray,
  type WebGpuDevice,
  wrap,
} from "../kernels/webgpu_device.ts";
import type { Layers } from "./layers.ts";
import { webgpuArithmetic } from "./webgpu_arithmetic.ts";
import { type Buffers, buffersOn } from "./webgpu_buffers.ts";
import { type Launches, launchesOn } from "./webgpu_launches.ts";

/** Layers on a GPUDevice. */
export interface WebGpuLayers extends Layers<GpuBinding, WebGpuArray>, Disposable {}

/** What the layers of all regions share. */
interface Machine {
  readonly queue: GPUQueue;
  readonly buffers: Buffers;
  readonly launches: Launches;
}

/**
 * Makes layers that share a device's GPUDevice.
 *
 * @param device where the batch norms compute
 * @returns the layers; to dispose them destroys their buffers. Do so before the device goes
 */
export function webgpuLayers(device: WebGpuDevice): WebGpuLayers {
  const { gpuDevice } = device;
  const buffers = buffersOn(gpuDevice);
  const launches = launchesOn(gpuDevice, buffers);
  const layers = layersOn(device, { queue: gpuDevice.queue, buffers, launches }, new Set());
  return Object.freeze({ ...layers, [Symbol.dispose]: buffers[Symbol.dispose] });
}

/** Layers on a device or on a region's handle on it, which note down the buffers of their living vectors. */
function layersOn(
  device: Device<WebGpuArray>,
  machine: Machine,
  living: Set<GPUBuffer>,
): Layers<GpuBinding, WebGpuArray> {
  const { queue, buffers, launches } = machine;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const allocate = (length: number): GpuBinding => {
    const buffer = buffers.take(4 * length, usage);
    living.add(buffer);
    return Object.freeze({ buffer, offset: 0, size: 4 * length });
  };
  const upload = (values: Float32Array): GpuBinding => {
    const vector = allocate(values.length);
    // Deno 2.9.6 aborts when it is given nothing to write.
    if (values.length > 0) queue.writeBuffer(vector.buffer, 0, Float32Array.from(values));
    return vector;
  };
  return Object.freeze<Layers<GpuBinding, WebGpuArray>>({
    ...webgpuArithmetic({ launches, allocate, upload }),
    device,
    upload,
    read: (...vectors) => launches.read(vectors),
    slice: ({ buffer, offset }, from, to) =>
      Object.freeze({ buffer, offset: offset + 4 * from, size: 4 * (to - from) }),
    toTensor: (vector, shape) => {
      launches.submit(); // Before the library submits what reads it.
      return wrap(device, vector, shape, { format: "channelsLast" });
    },
    fromArray: (array) => unwrap(array),
    region: (body) =>
      region(device, async (scope) => {
        const inner = new Set<GPUBuffer>();
        try {
          const result = await body(layersOn(scope, machine, inner));
          for (const buffer of Object.values(result).map(bufferOf)) {
            if (buffer && inner.delete(buffer)) living.add(buffer);
          }
          return result;
        } finally {
          // What still waits uses buffers that others may get now, and arrays that the library frees next.
          launches.submit();
          inner.forEach(buffers.give);
        }
      }),
    free: (...vectors) => {
      launches.submit(); // What waits may still read them.
      for (const { buffer } of vectors) {
        if (living.delete(buffer)) buffers.give(buffer);
        else {
          throw new TypeError(
            "Cannot free the vector as it must be a living one of these layers: it is not",
          );
        }
      }
    },
  });
}

/** The buffer of a vector; of anything else none. */
function bufferOf(value: unknown): GPUBuffer | undefined {
  return (value as Partial<GpuBinding> | null | undefined)?.buffer;
}
