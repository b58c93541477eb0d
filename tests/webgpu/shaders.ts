/** Every kernel in every option, put to the shader compiler of the implementation at hand. */

import assert from "node:assert/strict";
import { addScaledKernel, gateKernel, reluKernel } from "../../kernels/wgsl/elementwise.ts";
import {
  gradientSumsKernel,
  mergedSumsKernel,
  restatedSumsKernel,
} from "../../kernels/wgsl/gradient_sums.ts";
import { gradientsKernel, gradParametersKernel } from "../../kernels/wgsl/gradients.ts";
import type { Kernel } from "../../kernels/wgsl/kernel.ts";
import { momentsKernel } from "../../kernels/wgsl/moments.ts";
import { normalizeKernel } from "../../kernels/wgsl/normalize.ts";
import { mergedMomentsKernel, runningStatsKernel } from "../../kernels/wgsl/statistics.ts";
import type { Tile } from "../../kernels/wgsl/tiles.ts";
import type { DType } from "../../lib/tensor.ts";
import { createFailures } from "../../kernels/webgpu/failures.ts";
import { createPrograms } from "../../kernels/webgpu/programs.ts";
import type { Opener } from "../webgpu_kit.ts";

/** Every combination of the given values. */
function* combinations<T extends Record<string, readonly unknown[]>>(
  choices: T,
): Generator<{ readonly [K in keyof T]: T[K][number] }> {
  const [[name, values] = [], ...rest] = Object.entries(choices);
  if (name === undefined || values === undefined) {
    yield {} as { readonly [K in keyof T]: T[K][number] };
    return;
  }
  for (const tail of combinations(Object.fromEntries(rest))) {
    for (const value of values) {
      yield { [name]: value, ...tail } as { readonly [K in keyof T]: T[K][number] };
    }
  }
}

const YES_NO = [false, true] as const;

/** Every kernel that the device may launch. */
function allKernels(
  dtypes: readonly DType[],
  tiles: readonly (readonly [number, number])[],
): Kernel[] {
  return tiles.flatMap(([lanes, workgroup]) => kernelsOf(dtypes, { lanes, workgroup }));
}

function kernelsOf(dtypes: readonly DType[], tile: Tile): Kernel[] {
  const same = { lanes: [tile.lanes], workgroup: [tile.workgroup] };
  const each = { dtype: dtypes, ...same };
  const sources = { source: ["batch", "running"] as const };
  return [
    ...combinations(each).map(momentsKernel),
    mergedMomentsKernel(tile),
    runningStatsKernel(tile),
    ...combinations({
      ...{ ...each, ...sources, weight: YES_NO, bias: YES_NO },
      ...{ residual: YES_NO, relu: YES_NO },
    }).map(normalizeKernel),
    ...combinations({ ...each, ...sources, gated: YES_NO }).map(gradientSumsKernel),
    mergedSumsKernel(tile),
    ...combinations({ ...sources, ...same }).map(restatedSumsKernel),
    ...combinations({
      ...{ ...each, total: ["local", "other", "none"] as const, weight: YES_NO },
      ...{ gated: YES_NO, residual: YES_NO, parameters: YES_NO },
    }).map(gradientsKernel),
    gradParametersKernel(tile),
    ...combinations({ x: dtypes, y: dtypes, ...same }).map(addScaledKernel),
    ...combinations(each).map(reluKernel),
    ...combinations({ ...each, gated: YES_NO }).map(gateKernel),
  ];
}

/** Registers the test of shaders. */
export function shaderTests({ test, heavy }: Opener): void {
  test("every kernel in every option compiles, and two of one name are one", {
    everything: true,
  }, async ({ device: { gpuDevice, info } }) => {
    const dtypes: DType[] = info.float16 ? ["float32", "float16"] : ["float32"];
    const kernels = allKernels(dtypes, heavy ? [[1, 256], [4, 64], [64, 64]] : [[1, 64]]);
    const codes = new Map<string, string>();
    const failures = createFailures(gpuDevice);
    const programs = createPrograms(gpuDevice, failures);
    for (const kernel of kernels) {
      assert.equal(codes.get(kernel.name) ?? kernel.code, kernel.code, kernel.name);
      codes.set(kernel.name, kernel.code);
      programs.of(kernel);
    }
    assert.equal(codes.size, kernels.length, "every choice is in the name");
    await failures.reported();
    failures.check();
  });
}
