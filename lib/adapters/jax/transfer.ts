/**
 * The way between arrays of jax-js and of a device: on WebGPU a buffer of jax-js is used where it lies, and a result is copied
 * once, on the GPU, since jax-js can import no buffer; elsewhere numbers go over the host.
 *
 * @module
 */

import type { Device } from "../../device.ts";
import { adoptTensor, type Tensor, tensor } from "../../tensor.ts";
import type { Jax, JaxArray } from "./framework.ts";

/** What an array of a WebGPU device tells of itself. */
interface GpuArray {
  readonly binding: () => {
    readonly buffer: GPUBuffer;
    readonly offset: number;
    readonly size: number;
  };
}

/**
 * Takes an array of jax-js as a tensor and gives up no reference to it. On WebGPU the tensor is valid as long as the array is
 * alive.
 */
export async function take<A>(
  device: Device<A>,
  array: JaxArray,
  shape: readonly number[],
): Promise<Tensor<A>> {
  return array.device === "webgpu"
    ? adoptTensor(device, { buffer: await array.ref.gpuBuffer() }, shape, {})
    : tensor(device, await array.ref.data(), shape);
}

/** Makes an array of jax-js of the elements of a device's: of the shape, and on the backend, of another one. */
export async function give<J extends JaxArray, A>(
  jax: Jax<J>,
  device: Device<A>,
  array: A,
  { shape: [...shape], device: backend }: Pick<JaxArray, "shape" | "device">,
): Promise<J> {
  const zeros = () => jax.numpy.zeros(shape, { device: backend });
  if (device.describe(array).length === 0) return zeros();
  if (backend !== "webgpu") {
    return jax.numpy.array(await device.download(array), { shape, device: backend });
  }
  const made = zeros();
  try {
    const target = await made.ref.gpuBuffer();
    const { buffer, offset, size } = (array as GpuArray).binding();
    const gpuDevice = jax.getWebGPUDevice();
    const encoder = gpuDevice.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, offset, target, 0, size);
    gpuDevice.queue.submit([encoder.finish()]);
    return made;
  } catch (error) {
    made.dispose();
    throw error;
  }
}

/** Makes all of a list, or none: a failure disposes what is made already. */
export async function giveAll<J extends JaxArray | null>(
  makes: readonly (() => J | Promise<J>)[],
): Promise<J[]> {
  const made: J[] = [];
  try {
    for (const make of makes) made.push(await make());
    return made;
  } catch (error) {
    for (const array of made) array?.dispose();
    throw error;
  }
}
