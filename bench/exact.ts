/**
 * `deno task bench:exact`: what the law to the last bit costs. Forward and backward of an exact Wasm device beside an ordinary
 * one, one thread each, in turns.
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
import { commandLine } from "./command.ts";
import { elapsed, enough, median } from "./measure.ts";
import { table, time, writeSection } from "./report.ts";

const SHAPES: readonly (readonly [shape: readonly number[], format: Format])[] = [
  [[32, 64, 56, 56], "channelsFirst"],
  [[32, 64, 56, 56], "channelsLast"],
  [[32, 256, 14, 14], "channelsFirst"],
  [[256, 128], "channelsFirst"],
];
const ROUNDS = 41;

/** Makes a step whose results are freed. */
function stepOn(device: WasmDevice, shape: readonly number[], format: Format) {
  const length = shape.reduce((product, extent) => product * extent, 1);
  const [x, dy] = [1, 2].map((seed) =>
    tensor(device, normalArray(length, seed), shape, { format })
  );
  const state = initBatchNorm(device, shape[1]);
  const run = () =>
    region(device, (scope) => {
      const { saved } = batchNormForward(state, x, { device: scope });
      batchNormBackward(saved, dy, { device: scope });
    });
  return { run, free: () => device.free(x.data, dy.data) };
}

/** A line of the table: medians over the rounds, and the median of what each round's ratio is. */
async function measured(
  devices: readonly WasmDevice[],
  [shape, format]: typeof SHAPES[number],
): Promise<readonly string[]> {
  const steps = devices.map((device) => stepOn(device, shape, format));
  const runs: number[] = [];
  for (const step of steps) runs.push(await enough(step));
  const times = steps.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, step] of steps.entries()) {
      times[i].push(await elapsed(step, runs[i]) / runs[i]);
    }
  }
  for (const { free } of steps) free();
  const [plain, exact] = times;
  const ratios = exact.map((own, i) => own / plain[i]);
  const order = format === "channelsLast" ? ", channels last" : "";
  return [
    `[${shape}]${order}`,
    time(median(plain)),
    time(median(exact)),
    median(ratios).toFixed(1),
  ];
}

const HELP = `\
What the law to the last bit costs: an exact Wasm device beside an ordinary one, in turns.

Usage: deno task bench:exact [--write]

  --write   write the table to docs/exact.md, instead of printing it`;

if (import.meta.main) {
  const line = commandLine(HELP);
  const devices = [await wasmDevice(), await wasmDevice({ exact: true })];
  const lines = [["forward and backward", "ordinary, ms", "exact, ms", "times"]];
  for (const shape of SHAPES) lines.push([...await measured(devices, shape)]);
  devices.forEach((device) => device[Symbol.dispose]());
  const text = table(lines);
  if (!line.has("write")) console.log(text);
  else await writeSection("exact", text, new URL("../docs/exact.md", import.meta.url));
}
