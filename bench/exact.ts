/**
 * What the law to the last bit costs: forward and backward of an exact Wasm device beside an ordinary one, in turns, on one
 * thread: `deno run bench/exact.ts`.
 */

import {
  batchNormBackward,
  batchNormForward,
  type Format,
  initBatchNorm,
  region,
  tensor,
} from "../mod.ts";
import { type WasmDevice, wasmDevice } from "../kernels/wasm_device.ts";
import { normalArray } from "../tests/random.ts";

const SHAPES: readonly (readonly [shape: readonly number[], format: Format])[] = [
  [[256, 128], "channelsFirst"],
  [[32, 256, 14, 14], "channelsFirst"],
  [[32, 64, 56, 56], "channelsFirst"],
  [[32, 64, 56, 56], "channelsLast"],
];
/** Rounds of each device; of few elements many steps to a round. */
const ROUNDS = 41;
const ELEMENTS = 2_000_000;

/** Makes a step whose results are freed. */
function stepOn(device: WasmDevice, shape: readonly number[], format: Format): () => void {
  const length = shape.reduce((product, extent) => product * extent, 1);
  const [x, dy] = [1, 2].map((seed) =>
    tensor(device, normalArray(length, seed), shape, { format })
  );
  const state = initBatchNorm(device, shape[1]);
  return () =>
    region(device, (scope) => {
      const { saved } = batchNormForward(state, x, { device: scope });
      batchNormBackward(saved, dy, { device: scope });
    });
}

/** Median times of steps in ms, one of each after the other. */
function medians(steps: readonly (() => void)[], repeats: number): readonly number[] {
  const times = steps.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    steps.forEach((step, i) => {
      const start = performance.now();
      for (let n = 0; n < repeats; n++) step();
      times[i].push((performance.now() - start) / repeats);
    });
  }
  return times.map((all) => all.toSorted((a, b) => a - b)[all.length >> 1]);
}

if (import.meta.main) {
  const devices = [await wasmDevice(), await wasmDevice({ exact: true })];
  for (const [shape, format] of SHAPES) {
    const steps = devices.map((device) => stepOn(device, shape, format));
    const length = shape.reduce((product, extent) => product * extent, 1);
    const [plain, exact] = medians(steps, Math.max(1, Math.round(ELEMENTS / length)));
    console.log(
      `[${shape}] ${format}: ${plain.toFixed(4)} ms, exact ${exact.toFixed(4)} ms, ` +
        `${(exact / plain).toFixed(2)} times`,
    );
  }
  devices.forEach((device) => device[Symbol.dispose]());
}
