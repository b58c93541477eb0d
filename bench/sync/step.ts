/**
 * A training step of a ResNet-50's batch norms, and nothing else of it, on the Wasm device: with each rank's own statistics,
 * and with those of all ranks.
 *
 * @module
 */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import {
  type Backward,
  batchNormBackward,
  batchNormForward,
  type BatchNormState,
  type Device,
  initBatchNorm,
  type ProcessGroup,
  type Saved,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
} from "../../mod.ts";

/** What is timed. */
export interface StepOptions {
  /** Images per rank. */
  readonly batch: number;
  /** Steps of each kind, in turns; the median counts. */
  readonly rounds: number;
  /** Extent that images are shrunk to, for a quick run; 224 in a ResNet-50. */
  readonly image: number;
}

/** Milliseconds per step: medians. */
export interface StepTimes {
  readonly local: number;
  readonly sync: number;
}

/** Channels and spatial extent of a batch norm's input. */
interface Norm {
  readonly channels: number;
  readonly extent: number;
}

/**
 * The 53 batch norms of a ResNet-50, in order (He, Zhang, Ren, Sun 2016, table 1): the stem; per block two of its width and
 * one of four times that, at the resolution of its stage; a shortcut per stage.
 */
export function normsOf(image: number): readonly Norm[] {
  const stages = [[64, 3, 4], [128, 4, 8], [256, 6, 16], [512, 3, 32]] as const;
  return [
    { channels: 64, extent: image / 2 },
    ...stages.flatMap(([width, blocks, stride]) => {
      const extent = image / stride;
      const block = [width, width, 4 * width].map((channels) => ({ channels, extent }));
      return [...Array.from({ length: blocks }, () => block).flat(), {
        channels: 4 * width,
        extent,
      }];
    }),
  ];
}

/** A layer with its data; layers of one shape share an input and a gradient. */
interface Layer<A> {
  readonly state: BatchNormState<A>;
  readonly x: Tensor<A>;
  readonly dy: Tensor<A>;
}

function layersOf<A>(device: Device<A>, { batch, image }: StepOptions): readonly Layer<A>[] {
  const data = new Map<string, Omit<Layer<A>, "state">>();
  return normsOf(image).map(({ channels, extent }) => {
    const shape = [batch, channels, extent, extent];
    const key = shape.join();
    if (!data.has(key)) {
      const count = batch * channels * extent * extent;
      const make = (phase: number) =>
        tensor(device, Float32Array.from({ length: count }, (_, i) => Math.sin(i + phase)), shape);
      data.set(key, { x: make(0), dy: make(1) });
    }
    return { ...data.get(key)!, state: initBatchNorm(device, channels) };
  });
}

/** Frees what a layer's forward and backward made, so that the next step finds the memory. */
function free<A>(
  device: Device<A>,
  { saved, state }: { readonly saved: Saved<A>; readonly state: BatchNormState<A> },
  { gradInput, gradWeight, gradBias }: Backward<A>,
): void {
  const { runningMean, runningVar } = state;
  const made = [saved.moments.data, runningMean, runningVar, gradInput.data, gradWeight, gradBias];
  device.free(...made.filter((array) => array !== null));
}

function localStep<A>(device: Device<A>, layers: readonly Layer<A>[]): void {
  const forwards = layers.map(({ state, x }) => {
    const forward = batchNormForward(state, x, { device });
    device.free(forward.output.data);
    return forward;
  });
  for (const [i, forward] of [...forwards.entries()].reverse()) {
    free(device, forward, batchNormBackward(forward.saved, layers[i].dy, { device }));
  }
}

async function syncStep<A>(
  device: Device<A>,
  layers: readonly Layer<A>[],
  group: ProcessGroup,
): Promise<void> {
  const forwards = [];
  for (const { state, x } of layers) {
    const forward = await syncBatchNormForward(state, x, { device, group });
    device.free(forward.output.data);
    forwards.push(forward);
  }
  for (const [i, forward] of [...forwards.entries()].reverse()) {
    const effects = { device, group };
    free(device, forward, await syncBatchNormBackward(forward.saved, layers[i].dy, effects));
  }
}

/**
 * Times steps on this rank; all ranks begin each of them together.
 *
 * @param group the ranks
 * @param options what is timed
 * @returns the medians of this rank
 */
export async function timeSteps(group: ProcessGroup, options: StepOptions): Promise<StepTimes> {
  await using device = await wasmDevice();
  const layers = layersOf(device, options);
  const times = { local: [] as number[], sync: [] as number[] };
  const steps = {
    local: () => Promise.resolve(localStep(device, layers)),
    sync: () => syncStep(device, layers, group),
  };
  // The first round warms up.
  for (let round = 0; round <= options.rounds; round++) {
    for (const kind of ["local", "sync"] as const) {
      await group.barrier();
      const start = performance.now();
      await steps[kind]();
      if (round > 0) times[kind].push(performance.now() - start);
    }
  }
  const median = (list: number[]) => list.sort((a, b) => a - b)[list.length >> 1];
  return { local: median(times.local), sync: median(times.sync) };
}
