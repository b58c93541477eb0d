/**
 * A training step of a ResNet-50's batch norms as a chain of launches: forward through all layers, then backward.
 *
 * @module
 */

import {
  batch,
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  initBatchNorm,
  release,
  type Tensor,
  tensor,
} from "../../mod.ts";
import type { WebGpuArray, WebGpuDevice } from "../../kernels/webgpu_device.ts";
import { normsOf } from "../sync/step.ts";

/** A network's batch norms, and a step over them. */
export interface Network {
  readonly layers: number;
  /** One step; `together` launches each direction of all layers in one batch. Returns ms until all calls have returned. */
  readonly step: (together: boolean) => { readonly forward: number; readonly backward: number };
}

/**
 * Makes the layers of a ResNet-50.
 *
 * @param device where they live
 * @param images images per step
 * @param image their extent, 224 in a ResNet-50
 * @returns what takes steps
 */
export function networkOn(device: WebGpuDevice, images: number, image: number): Network {
  const inputs = new Map<string, Tensor<WebGpuArray>>();
  const layers = normsOf(image).map(({ channels, extent }) => {
    const shape = [images, channels, extent, extent];
    const key = String(shape);
    const elements = shape.reduce((product, extent) => product * extent, 1);
    const x = inputs.get(key) ?? tensor(device, new Float32Array(elements), shape);
    inputs.set(key, x); // Layers of one shape read one tensor: only launches are of interest.
    return { x, state: initBatchNorm(device, channels) };
  });
  let states: readonly BatchNormState<WebGpuArray>[] = layers.map(({ state }) => state);
  const step: Network["step"] = (together) => {
    const launch = <R>(body: (d: typeof device) => R): R =>
      together ? batch(device, (joined) => body(joined as typeof device)) : body(device);
    const begin = performance.now();
    const made = launch((d) =>
      layers.map(({ x }, i) => batchNormForward(states[i], x, { device: d }))
    );
    const middle = performance.now();
    const back = launch((d) =>
      layers.map(({ x }, i) => batchNormBackward(made[i].saved, x, { device: d })).reverse()
    );
    const end = performance.now();
    const next = made.map(({ state }) => state);
    release(device, [states, made, back], { keep: [next, layers] });
    states = next;
    return { forward: middle - begin, backward: end - middle };
  };
  return { layers: layers.length, step };
}
