/** Masks of ReLU in every pair of layouts: hundreds of kernels, which a software adapter compiles for minutes. */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormForward,
  type Format,
  initBatchNorm,
  tensor,
  toArray,
} from "../../mod.ts";
import { rectifiedBy } from "../../lib/activation.ts";
import type { WebGpuDevice } from "../../kernels/webgpu_device.ts";
import { normalArray } from "../random.ts";
import type { Opener } from "../webgpu_kit.ts";

/** Registers the test. */
export function maskTests({ test, tier }: Opener): void {
  test("a mask gives the bits that the output gives, whatever reads it", {
    everything: true,
  }, async ({ device }) => {
    const shapes: readonly (readonly number[])[] = [
      ...[[3, 8, 10, 10], [9, 260, 4]], // Several tiles of lanes.
      ...(tier === "full" ? [[5, 12, 7], [301, 20], [2, 1, 640], [1, 2, 8192], [2, 4, 1]] : []),
    ];
    const formats = ["channelsFirst", "channelsLast"] as const;
    const dtypes = device.info.float16 ? ["float32", "float16"] as const : ["float32"] as const;
    // Each shape in every pair of formats, and the storages in turns: all with all would be twice as many kernels.
    let turn = 0;
    for (const shape of shapes) {
      for (const format of formats) {
        for (const gradientFormat of formats) {
          const one = { shape, format, gradientFormat, dtype: dtypes[turn++ % dtypes.length] };
          await compare(device, one);
        }
        turn++;
      }
    }
  });
}

/** Goes back by the mask, and by an output that is an array of its own and so has none. */
async function compare(
  device: WebGpuDevice,
  one: {
    readonly shape: readonly number[];
    readonly format: Format;
    readonly gradientFormat: Format;
    readonly dtype: "float32" | "float16";
  },
): Promise<void> {
  const { shape, format, gradientFormat, dtype } = one;
  const length = shape.reduce((product, extent) => product * extent, 1);
  const [x, dy, residual] = [format, gradientFormat, format].map((format, seed) =>
    tensor(device, normalArray(length, 1 + seed), shape, { format, dtype })
  );
  const { output, saved } = batchNormForward(
    initBatchNorm(device, shape[1]),
    x,
    { device },
    { residual, activation: "relu" },
  );
  const copy = tensor(device, await toArray(device, output), shape, { format, dtype });
  const [masked, plain] = await Promise.all(
    [saved, { ...saved, output: rectifiedBy("relu", copy) }].map((saved) => {
      const { gradInput, gradResidual, gradWeight, gradBias } = batchNormBackward(saved, dy, {
        device,
      });
      return device.downloadAll!([gradInput.data, gradResidual!.data, gradWeight!, gradBias!]);
    }),
  );
  assert.deepEqual(masked, plain, JSON.stringify(one));
}
