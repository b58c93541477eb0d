/**
 * The way between tfjs's tensors and arrays of a device: through the host, or on one GPU without a copy.
 *
 * On a GPU both sides put work on one queue, so what counts is the order of submits: tfjs's go before ours where we take
 * its memory, and before ours is used again.
 *
 * @module
 */

import type { Device } from "../../device.ts";
import { adoptTensor, elements, type Tensor, tensor } from "../../tensor.ts";
import { type GpuBackend, gpuBackendOf } from "./internals.ts";
import type { TensorFlow, TfTensor } from "./framework.ts";

/** A way between tfjs and one device. */
export interface Bridge<A> {
  /** Gives a tensor of tfjs to the device, under another shape; `free` ends the loan. */
  readonly take: (given: TfTensor, shape: readonly number[]) => Promise<Tensor<A>>;
  /** Makes a tensor of tfjs of an array, which is no longer the caller's; the tensor is kept until it is disposed. */
  readonly give: (array: A, shape: readonly number[]) => Promise<TfTensor>;
  /** Frees arrays, those that were taken too. */
  readonly free: (...arrays: A[]) => void;
  /** Frees the arrays whose tensors tfjs has let go. */
  readonly sweep: () => void;
}

/** Opens the way between tfjs's backend of now and a device. */
export function bridgeBetween<A>(tf: TensorFlow, device: Device<A>, action: string): Bridge<A> {
  const backend = gpuBackendOf(tf);
  const { gpuDevice } = device as Partial<OnGpu>;
  if (!backend || gpuDevice === undefined) return throughHost(tf, device);
  checkGpu(backend, device, gpuDevice, action);
  return onGpu(tf, device, backend);
}

/** Copies each way: no memory is shared by tfjs's CPU and Wasm backends and a device. */
function throughHost<A>(tf: TensorFlow, device: Device<A>): Bridge<A> {
  return Object.freeze<Bridge<A>>({
    take: async (given, shape) => {
      const values = await given.data();
      return tensor(device, values, shape);
    },
    give: async (array, shape) => {
      const values = await device.download(array);
      device.free(array);
      return tf.keep(tf.tensor(values, shape, "float32"));
    },
    free: device.free,
    sweep: () => {},
  });
}

/** What a WebGPU device is beside a device. */
interface OnGpu {
  readonly gpuDevice: object;
}

/** What its arrays are. */
interface OnBuffer {
  readonly binding: () => {
    readonly buffer: { readonly size: number };
    readonly offset: number;
    readonly size: number;
  };
}

/** Wraps buffers each way. */
function onGpu<A>(tf: TensorFlow, device: Device<A>, backend: GpuBackend): Bridge<A> {
  const taken = new Map<A, TfTensor>(); // Each holds the memory of an array that is on loan from tfjs.
  const given = new Map<A, TfTensor["dataId"]>();
  const free = (...arrays: A[]): void => {
    device.free(...arrays);
    for (const array of arrays) {
      taken.get(array)?.dispose();
      taken.delete(array);
    }
  };
  return Object.freeze<Bridge<A>>({
    take: (loan, shape) => {
      checkBackend(tf, backend);
      if (loan.size === 0) return Promise.resolve(tensor(device, [], shape));
      const buffer = backend.bufferOf(loan.dataId);
      backend.submit();
      const wrapped = adoptTensor(device, { buffer }, shape, {});
      taken.set(wrapped.data, tf.keep(loan.clone()));
      return Promise.resolve(wrapped);
    },
    give: (array, shape) => {
      checkBackend(tf, backend);
      if (elements(shape) === 0) {
        device.free(array);
        return Promise.resolve(tf.keep(tf.zeros(shape)));
      }
      const { buffer } = (array as OnBuffer).binding();
      const made = tf.keep(tf.tensor({ buffer, zeroCopy: true }, shape, "float32"));
      given.set(array, made.dataId);
      return Promise.resolve(made);
    },
    free,
    sweep: () => {
      const over = [...given].filter(([, dataId]) => backend.references(dataId) === 0);
      if (over.length === 0) return;
      // What tfjs has put down reads them, and is to do so before the device writes there again.
      backend.submit();
      for (const [array] of over) given.delete(array);
      free(...over.map(([array]) => array));
    },
  });
}

function checkBackend(tf: TensorFlow, backend: GpuBackend): void {
  if (backend.isCurrent()) return;
  throw new TypeError(
    "Cannot train the model as TensorFlow.js's backend must be the one that the trainer was made on: current one is " +
      `another, "${tf.getBackend()}"; make a trainer anew`,
  );
}

/** Checks that both are on one GPUDevice, and that results lie as tfjs takes them: alone, from the first byte on. */
function checkGpu<A>(
  backend: GpuBackend,
  device: Device<A>,
  gpuDevice: object,
  action: string,
): void {
  if (gpuDevice !== backend.gpuDevice) {
    throw new TypeError(
      `Cannot ${action} as the device must be on the GPUDevice of TensorFlow.js, whose memory it is to share: current one ` +
        `is another; make it by webgpuDevice(tf.backend().device, { exactBuffers: true }), or give ` +
        `TensorFlow.js the device's own by tf.registerBackend`,
    );
  }
  const probe = device.upload(new Float32Array(3));
  const { buffer, offset, size } = (probe as OnBuffer).binding();
  device.free(probe);
  if (offset === 0 && size === buffer.size) return;
  throw new TypeError(
    `Cannot ${action} as TensorFlow.js takes over whole buffers only: the device must be made with ` +
      `{ exactBuffers: true }; of its buffers of ${buffer.size} bytes a tensor has ${size}`,
  );
}
