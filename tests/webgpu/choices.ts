/** What the plan may choose, each choice at many shapes: hundreds of kernels, which a software adapter compiles for minutes. */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormForward,
  type Format,
  initBatchNorm,
  tensor,
} from "../../mod.ts";
import type { Choices } from "../../kernels/webgpu/choices.ts";
import { webgpuDevice } from "../../kernels/webgpu_device.ts";
import { assertClose } from "../kit.ts";
import { normalArray } from "../random.ts";
import type { Opened, Opener } from "../webgpu_kit.ts";

/** Registers the tests. */
export function choiceTests({ test, tier }: Opener): void {
  const heavy = tier === "full";

  test("a mask gives the bits that the output gives, whatever reads it", {
    everything: true,
  }, async ({ device: { gpuDevice, info }, recording }) => {
    const shapes: readonly (readonly number[])[] = [
      ...[[3, 8, 10, 10], [9, 260, 4]], // Several tiles of lanes.
      ...(heavy ? [[5, 12, 7], [301, 20], [2, 1, 640], [1, 2, 8192], [70, 3, 2, 2]] : []),
      ...(heavy ? [[2, 4, 1]] : []), // Fewer positions than a word has.
    ];
    const formats = ["channelsFirst", "channelsLast"] as const;
    const dtypes = info.float16 ? ["float32", "float16"] as const : ["float32"] as const;
    // Other tiles for who reads than for who writes, and groups of channels, on the way back.
    const plans: readonly Partial<Choices>[] = [
      ...(heavy ? [{}] : []),
      { cacheBytes: 2048, workgroup: 128 },
    ];
    // Each shape in every pair of formats, and with those every storage and plan in turns, so that any two of them meet:
    // all of them with all would be four times as many kernels, which is what takes the time here.
    const turns = plans.flatMap((plan) => dtypes.map((dtype) => ({ plan, dtype })));
    const pairs = formats.flatMap((format) =>
      formats.map((gradientFormat) => ({ format, gradientFormat }))
    );
    for (const [at, { plan, dtype }] of turns.entries()) {
      using masked = webgpuDevice(gpuDevice, { plan });
      using plain = webgpuDevice(recording.gpuDevice, { plan: { ...plan, masks: false } });
      for (const [i, shape] of shapes.entries()) {
        for (const [j, pair] of pairs.entries()) {
          if ((i + j) % turns.length !== at) continue;
          const one = { shape, ...pair, dtype };
          assert.deepEqual(
            await train({ device: masked, ...one }),
            await train({ device: plain, ...one }),
            JSON.stringify({ ...one, plan }),
          );
        }
      }
    }
  });

  test("no choice changes a result but for rounding, in any layout", {
    everything: true,
  }, async ({ device: { gpuDevice, info } }) => {
    const choices: readonly Partial<Choices>[] = [
      {},
      { packs: false, ahead: 1, walked: 1, workgroups: 2 ** 16 },
      { ahead: 8, walked: 3, workgroup: 128, cacheBytes: 2048, workgroups: 1 },
    ];
    const shapes: readonly (readonly number[])[] = [[3, 8, 10, 10], [5, 12, 7], [301, 20], [
      2,
      1,
      640,
    ]];
    const results: Float32Array[][] = [];
    const exact: boolean[] = [];
    for (const plan of choices) {
      using device = webgpuDevice(gpuDevice, { plan });
      const found: Float32Array[] = [];
      for (const shape of shapes) {
        for (const format of ["channelsFirst", "channelsLast"] as Format[]) {
          for (
            const dtype of info.float16 ? ["float32", "float16"] as const : ["float32"] as const
          ) {
            const made = await train({ device, shape, format, dtype });
            found.push(...made);
            if (results.length === 0) exact.push(...made.map(() => dtype === "float32"));
          }
        }
      }
      results.push(found);
    }
    const [expected, ...others] = results;
    for (const [i, actual] of others.entries()) {
      actual.forEach((values, k) => {
        // A few units of the largest terms; a float16 may round to its other neighbour, 2^-10 away.
        const close = exact[k]
          ? { absolute: 2 ** -18, relative: 2 ** -18 }
          : { absolute: 2 ** -9, relative: 2 ** -9 };
        assertClose(values, expected[k], close, `${JSON.stringify(choices[i + 1])}, result ${k}`);
      });
    }
  });
}

async function train(
  { device, shape, format, gradientFormat = format, dtype }: Pick<Opened, "device"> & {
    readonly shape: readonly number[];
    readonly format: Format;
    readonly gradientFormat?: Format;
    readonly dtype: "float32" | "float16";
  },
): Promise<Float32Array[]> {
  const length = shape.reduce((product, extent) => product * extent, 1);
  const [x, dy, residual] = [format, gradientFormat, format].map((format, seed) =>
    tensor(device, normalArray(length, 1 + seed), shape, { format, dtype })
  );
  const { output, saved, state } = batchNormForward(
    initBatchNorm(device, shape[1]),
    x,
    { device },
    { residual, activation: "relu" },
  );
  const back = batchNormBackward(saved, dy, { device });
  // Together: a readback of Deno's own takes 11 ms, however little is read.
  const arrays = [
    ...[output.data, back.gradInput.data, back.gradResidual!.data],
    ...[back.gradWeight!, back.gradBias!, state.runningVar!],
  ];
  const all = await device.downloadAll!(arrays);
  let at = 0;
  return arrays.map((array) => all.subarray(at, at += device.describe(array).length));
}
