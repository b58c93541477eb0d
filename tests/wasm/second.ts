/** Second order by weights on Wasm against the reference device, at shapes that divide nothing, on guarded memory. */

import assert from "node:assert/strict";
import {
  batchNormBackwardBackward,
  batchNormBackwardMoments,
  batchNormForward,
  batchNormJvp,
  type Device,
  type DType,
  type Format,
  initBatchNorm,
  referenceDevice,
  region,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { assertClose, EPSILON } from "../kit.ts";
import { normalArray } from "../random.ts";
import { type Opening, openWasm } from "../wasm_kit.ts";

interface Case {
  readonly shape: readonly number[];
  readonly format?: Format;
  readonly dtype?: DType;
  readonly relu?: true;
  readonly perSample?: true;
}

const CASES: readonly Case[] = [
  // Rows around the length of a run.
  { shape: [2, 2, 1025] },
  { shape: [2, 3, 4097], dtype: "float16", relu: true },
  // Rows of more lanes than are widened at once, and of as many.
  { shape: [3, 1025, 5], format: "channelsLast", relu: true },
  { shape: [3, 1026, 5], format: "channelsLast", dtype: "float16" },
  { shape: [17, 512, 1] },
  // Lanes of a few places, of short rows, and last rows that are not whole.
  { shape: [35, 18], perSample: true, relu: true },
  { shape: [101, 3, 2], format: "channelsLast" },
  { shape: [9, 61, 7], dtype: "float16", relu: true },
  { shape: [333, 5, 3], perSample: true },
  // Parts that begin in the middle of a row.
  { shape: [3, 7, 11, 13], relu: true },
  { shape: [401, 17, 3] },
  { shape: [3, 67, 103], format: "channelsLast" },
];

/** All of second order of a case, and how large its numbers are. */
async function followed<A>(device: Device<A>, options: Case) {
  const { shape, format = "channelsFirst", dtype = "float32", relu, perSample } = options;
  const [N, C, ...spatial] = shape;
  const length = shape.reduce((product, extent) => product * extent, 1);
  return await region(device, async (scope) => {
    const effects = { device: scope };
    const put = (seed: number, order = format) =>
      tensor(scope, normalArray(length, seed), shape, { format: order, dtype });
    const places = perSample ? [N, 1] : [N, 1, ...spatial];
    const numbers = Float32Array.from(
      { length: places.reduce((product, extent) => product * extent, 1) },
      (_, i) => i % 5 / 2,
    );
    const activation = relu ? "relu" : undefined;
    const weights = tensor(scope, numbers, places, { format, dtype });
    const vector = (seed: number) => scope.upload(normalArray(C, seed));
    const state = { ...initBatchNorm(scope, C, { eps: 0.1 }), bias: vector(1) };
    const { saved } = batchNormForward(state, put(2), effects, { weights, activation });
    const [dy, along] = [put(3, "channelsFirst"), put(4, "channelsLast")];
    const cotangents = { gradInput: along, gradWeight: vector(5), gradBias: vector(6) };
    const second = batchNormBackwardBackward(saved, dy, cotangents, effects);
    const owed = { dmean: vector(7), dvariance: vector(8) };
    const read = (tensor: Tensor<A>) => toArray(scope, tensor);
    return {
      jvp: await read(batchNormJvp(saved, { input: along, weight: vector(9) }, effects)),
      gradInput: await read(second.gradInput),
      gradGradOutput: await read(second.gradGradOutput),
      owed: await read(batchNormBackwardMoments(saved, dy, owed, effects).gradInput),
      gradWeight: await scope.download(second.gradWeight!),
    };
  });
}

const OPENINGS: readonly Opening[] = [
  { build: "simd128", options: { threads: 1 } },
  { build: "relaxed", options: { threads: 3 }, least: 32 },
];

/** Registers the test. */
export function secondTests(): void {
  Deno.test("wasm: second order by weights equals the reference device", async () => {
    const reference = referenceDevice();
    const wanted = await Promise.all(CASES.map((options) => followed(reference, options)));
    for (const { device, guarded } of await Promise.all(OPENINGS.map(openWasm))) {
      for (const [i, options] of CASES.entries()) {
        const is = await followed(device, options);
        guarded.check();
        for (const name of Object.keys(is) as (keyof typeof is)[]) {
          const dtype = name === "gradWeight" ? "float32" : options.dtype ?? "float32";
          const largest = wanted[i][name].reduce((most, v) => Math.max(most, Math.abs(v)), 1);
          const close = {
            absolute: (16 * EPSILON.float32 + (dtype === "float16" ? EPSILON.float16 : 0)) *
              largest,
            relative: 0,
          };
          assertClose(is[name], wanted[i][name], close, `${JSON.stringify(options)}: ${name}`);
        }
      }
      assert(guarded.blocks() <= 1, "only scratch memory is left");
      device[Symbol.dispose]();
    }
  });
}
