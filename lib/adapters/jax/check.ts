/**
 * What a call is checked for before anything is allocated: arrays of jax-js that are alive, of float32, of the right shape and
 * where the device can take them.
 *
 * @module
 */

import type { BatchNormState } from "../../check_state.ts";
import type { Device } from "../../device.ts";
import { sameShape } from "../../tensor.ts";
import { shown } from "../../words.ts";
import type { Jax, JaxArray } from "./framework.ts";

/** An array of a call, by its name in messages; null for none. */
export type Named<J extends JaxArray = JaxArray> = readonly [name: string, array: J | null];

/** Checks the module that stands for jax-js. */
export function checkJax(jax: Jax, action: string): void {
  const { numpy, getWebGPUDevice } = Object(jax) as Partial<Jax>;
  const functions = [numpy?.array, numpy?.zeros, getWebGPUDevice];
  if (functions.every((each) => typeof each === "function")) return;
  throw new TypeError(
    `Cannot ${action} as its first argument must be the module of jax-js, ` +
      `all that @jax-js/jax exports: current value is ${shown(jax)}`,
  );
}

/** Checks arrays of one call: all alive, of float32, and on one backend. */
export function checkArrays(arrays: readonly Named[], action: string): void {
  const given = arrays.flatMap(([, array]) => array ?? []);
  for (const [name, array] of arrays) {
    if (array === null) continue;
    checkArray(array, given, name, action);
    if (array.device === given[0].device) continue;
    throw new TypeError(
      `Cannot ${action} as its arrays must lie on one backend of jax-js: ${name} lies on ` +
        `${array.device}, another on ${given[0].device}; move it by jax.devicePut`,
    );
  }
}

function checkArray(
  array: JaxArray,
  given: readonly JaxArray[],
  name: string,
  action: string,
): void {
  const { shape, dtype, device, refCount } = Object(array) as Partial<JaxArray>;
  if (!Array.isArray(shape) || typeof device !== "string" || typeof refCount !== "number") {
    const tracer = Array.isArray(shape) ? "; within vjp, grad or jit there are no numbers yet" : "";
    throw new TypeError(
      `Cannot ${action} as ${name} must be an array of jax-js, between two segments of vjp: ` +
        `current value is ${shown(array)}${tracer}`,
    );
  }
  if (refCount < given.filter((other) => other === array).length) {
    throw new TypeError(
      `Cannot ${action} as ${name} must be alive: it has ${refCount} references left; ` +
        `pass ${name}.ref to whatever else uses it`,
    );
  }
  if (dtype !== "float32") {
    throw new TypeError(
      `Cannot ${action} as ${name} must be float32: current dtype is ${dtype}; ` +
        `cast it by astype(jax.numpy.float32)`,
    );
  }
}

/** Checks that a device can take arrays from where they lie. */
export function checkBackend<A>(
  jax: Jax,
  device: Device<A>,
  { device: backend }: JaxArray,
  action: string,
): void {
  const { gpuDevice } = device as { readonly gpuDevice?: GPUDevice };
  const { name } = device.info;
  if (backend === "webgpu") {
    if (gpuDevice !== undefined && gpuDevice === jax.getWebGPUDevice()) return;
    throw new TypeError(
      `Cannot ${action} as arrays on webgpu need a device on the same GPUDevice, as of ` +
        `webgpuDevice(jax.getWebGPUDevice()): current one is ${name}` +
        (gpuDevice === undefined ? "" : ", on another GPUDevice"),
    );
  }
  if ((backend === "wasm" || backend === "cpu") && gpuDevice === undefined) return;
  throw new TypeError(
    `Cannot ${action} as its arrays must lie where the device can take them: they lie on ` +
      `${backend} of jax-js, and the device is ${name}; use wasm with a Wasm device, ` +
      `or webgpu with webgpuDevice(jax.getWebGPUDevice())`,
  );
}

/** Checks a shape to be another one. */
export function checkShape(
  array: JaxArray,
  wanted: readonly number[],
  name: string,
  action: string,
): void {
  const { shape } = array;
  if (sameShape(shape, wanted)) return;
  throw new TypeError(
    `Cannot ${action} as the shape of ${name} must be (${wanted.join(", ")}): ` +
      `current shape is (${shape.join(", ")})`,
  );
}

/** Checks that a state is of so many channels, and leaves weight and bias to the call. */
export function checkFits<A>(
  { numFeatures, weight, bias }: BatchNormState<A>,
  channels: number,
  action: string,
): void {
  if (numFeatures !== channels) {
    throw new TypeError(
      `Cannot ${action} as the state must have as many channels as h along axis: ` +
        `current values are ${numFeatures} and ${channels}; channels last is axis -1`,
    );
  }
  if (weight === null && bias === null) return;
  throw new TypeError(
    `Cannot ${action} as the state must have no weight and bias, which gamma and beta are: ` +
      `make it by initBatchNorm(device, ${channels}, { affine: false })`,
  );
}

/** The extents that normalization sees. */
export type Extents = readonly [samples: number, channels: number, positions: number];

/**
 * Finds the extents that normalization sees around an axis, which is any: all before it are samples, all after it positions.
 */
export function around(
  shape: readonly number[],
  axis: number,
  action: string,
): Extents {
  const at = axis < 0 ? shape.length + axis : axis;
  if (shape.length < 2 || !Number.isInteger(at) || at < 0 || at >= shape.length) {
    throw new RangeError(
      `Cannot ${action} as h must have a rank of 2 or more and axis ${axis} be one of its axes: ` +
        `current shape is (${shape.join(", ")})`,
    );
  }
  const product = (extents: readonly number[]) => extents.reduce((all, each) => all * each, 1);
  return [product(shape.slice(0, at)), shape[at], product(shape.slice(at + 1))];
}
