/** The batch norms of a ResNet-50: what a training step has to normalize. */

import {
  batch,
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  type Device,
  initBatchNorm,
  release,
  type Tensor,
  tensor,
} from "../mod.ts";

export interface Norm {
  readonly channels: number;
  readonly extent: number;
}

/**
 * All 53, in order (He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", table 1): the stem; per block
 * two of its width and one of four times that, at the resolution of its stage; a shortcut per stage. An image of a ResNet-50
 * has an extent of 224.
 */
export function normsOf(image: number): readonly Norm[] {
  const stages = [[64, 3, 4], [128, 4, 8], [256, 6, 16], [512, 3, 32]] as const;
  return [
    { channels: 64, extent: image / 2 },
    ...stages.flatMap(([width, blocks, stride]) => {
      const norm = (channels: number) => ({ channels, extent: image / stride });
      const block = [width, width, 4 * width].map(norm);
      return [...Array.from({ length: blocks }, () => block).flat(), norm(4 * width)];
    }),
  ];
}

export interface Layer<A> {
  readonly state: BatchNormState<A>;
  readonly x: Tensor<A>;
  readonly dy: Tensor<A>;
}

/** Puts all of them onto a device; layers of one shape share an input and a gradient. */
export function layersOf<A>(device: Device<A>, images: number, image: number): readonly Layer<A>[] {
  const data = new Map<string, Omit<Layer<A>, "state">>();
  return normsOf(image).map(({ channels, extent }) => {
    const shape = [images, channels, extent, extent];
    const key = shape.join();
    const make = (phase: number) => {
      const length = shape.reduce((product, extent) => product * extent, 1);
      return tensor(device, Float32Array.from({ length }, (_, i) => Math.sin(i + phase)), shape);
    };
    const shared = data.get(key) ?? { x: make(0), dy: make(1) };
    data.set(key, shared);
    return { ...shared, state: initBatchNorm(device, channels) };
  });
}

/** Forward through all layers, then backward; `together` launches each direction in one batch. Returns ms of both. */
export function stepper<A>(
  device: Device<A>,
  layers: readonly Layer<A>[],
): (together: boolean) => [number, number] {
  let states = layers.map(({ state }) => state);
  return (together) => {
    const launch = <R>(body: (d: typeof device) => R): R =>
      together ? batch(device, (joined) => body(joined)) : body(device);
    const begin = performance.now();
    const made = launch((d) =>
      layers.map(({ x }, i) => batchNormForward(states[i], x, { device: d }))
    );
    const middle = performance.now();
    const back = launch((d) =>
      layers.map(({ dy }, i) => batchNormBackward(made[i].saved, dy, { device: d }))
    );
    const end = performance.now();
    const next = made.map(({ state }) => state);
    release(device, [states, made, back], { keep: [next, layers] });
    states = next;
    return [middle - begin, end - middle];
  };
}
