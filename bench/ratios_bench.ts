/**
 * `deno bench`: what options and derivatives cost beside the plain passes, on one thread of Wasm. The baseline of each group is
 * the plain pass, so that "times slower" is the price. Results are checked before anything is timed.
 */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormBackwardBackward,
  batchNormForward,
  batchNormJvp,
  region,
  tensor,
  toArray,
} from "../mod.ts";
import { type WasmArray, wasmDevice } from "../kernels/wasm_device.ts";
import { elementsOf, first, numbersOf, place, titleOf } from "./batches.ts";
import { ONCE, QUICK } from "./devices.ts";

const SHAPE = QUICK ? first(2, 64, 56, 56) : first(32, 64, 56, 56);
const device = await wasmDevice({ threads: 1 });
const { state, x, dy } = place(device, SHAPE, numbersOf(SHAPE));
const { saved } = batchNormForward(state, x, { device });
const direction = tensor(
  device,
  Float32Array.from({ length: elementsOf(SHAPE) }, (_, i) => Math.sin(i)),
  SHAPE.shape,
);

type Scope = Parameters<typeof batchNormForward<WasmArray>>[2];
const backward = (effects: Scope) => batchNormBackward(saved, dy, effects);
const jvp = (effects: Scope) => batchNormJvp(saved, { input: direction }, effects);
const second = (effects: Scope) =>
  batchNormBackwardBackward(saved, dy, { gradInput: direction }, effects);
const { sums } = batchNormBackward(saved, dy, { device }, { keepSums: true });
const kept = (effects: Scope) =>
  batchNormBackwardBackward(saved, dy, { gradInput: direction }, effects, { sums });
const { shape: [samples, , ...places] } = SHAPE;
const counting = [samples, 1, ...places];
const weights = tensor(
  device,
  Float32Array.from({ length: elementsOf(SHAPE) / SHAPE.shape[1] }, (_, i) => i % 3 / 2),
  counting,
);
const weighted = batchNormForward(state, x, { device }, { weights }).saved;
const jvpByWeight = (effects: Scope) => batchNormJvp(weighted, { input: direction }, effects);
const secondByWeight = (effects: Scope) =>
  batchNormBackwardBackward(weighted, dy, { gradInput: direction }, effects);

await region(device, async (device) => {
  const dot = (a: Float32Array, b: Float32Array) =>
    a.reduce((sum, value, i) => sum + value * b[i], 0);
  const [u, gradOutput, along, gradInput] = await Promise.all(
    [direction, dy, jvp({ device }), backward({ device }).gradInput].map((t) => toArray(device, t)),
  );
  // Forward and reverse mode are adjoint: <J u, dy> = <u, J' dy>; sums of 6 million products of either sign.
  const [a, b] = [dot(along, gradOutput), dot(u, gradInput)];
  assert(Math.abs(a - b) <= 1e-6 * elementsOf(SHAPE) ** 0.5 * 10, `${a} and ${b}`);
});

/** Registers a pass of a group. */
function pass(
  group: string,
  name: string,
  run: (effects: Scope) => unknown,
  baseline = false,
): void {
  Deno.bench({
    name: `${name} ${titleOf(SHAPE)}`,
    ...{ group, baseline, ...(QUICK && ONCE) },
    fn: () => region(device, (scope) => void run({ device: scope })),
  });
}

pass("second order", "backward", backward, true);
pass("second order", "a direction (JVP)", jvp);
pass("second order", "gradients of gradients", second);
pass("second order", "the same by sums that backward has kept", kept);
pass("second order", "a direction by weights of examples", jvpByWeight);
pass("second order", "gradients of gradients by weights", secondByWeight);
