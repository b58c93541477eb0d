/** The exact Wasm device: the bits of the exact reference device, for any layout, part and number of threads. */

import assert from "node:assert/strict";
import fc from "fast-check";
import * as bn from "../../mod.ts";
import { createDevice } from "../../kernels/wasm/device.ts";
import { type WasmArray, wasmDevice } from "../../kernels/wasm_device.ts";
import { requestWebGpuDevice } from "../../kernels/webgpu_device.ts";
import { assertSame, exactAlone, exactRank } from "./law.ts";
import { normalArray } from "../random.ts";
import { type ExactBatch, exactScenarios } from "./scenario.ts";
import { exactStep, type StepBits } from "./step.ts";

Deno.test("exact Wasm: 800 partitions have the bits of one rank on the reference device, among whose ranks they may be", async () => {
  await using device = await wasmDevice({ exact: true });
  const reference = bn.referenceDevice({ exact: true });
  const property = fc.asyncProperty(exactScenarios(16), async (scenario) => {
    const { ranks, seed } = scenario.partition;
    const parts = await bn.runRanks(
      ranks,
      (group) =>
        seed % 4 === 0 && group.rank % 2 === 1
          ? exactRank(reference, group, scenario)
          : exactRank(device, group, scenario),
    );
    assertSame(parts, await exactAlone(scenario));
  });
  await fc.assert(property, { numRuns: 800, seed: 2031 });
});

/** Shapes that divide nothing, and those by which a kernel decides: runs of 1,024, tiles of 256 rows, strips, short rows. */
const SHAPES: readonly (readonly number[])[] = [
  [3, 2, 33, 34], // runs of a row that is longer than one, and ends between vectors
  [2, 3, 1023],
  [40, 5, 7], // short rows, as lanes
  [9, 3, 5, 5],
  [300, 4], // more rows than a tile has, and lanes of many
  [67, 67],
  [530, 16],
  [33, 12, 1],
  [1, 1, 2100],
];
const SPREADS = ["standard", "offset", "sparse", "broad", "wide", "special", "subnormal"] as const;

Deno.test("exact Wasm: all layouts, storages and threads have the bits of the reference device", async () => {
  const reference = bn.referenceDevice({ exact: true });
  const wanted = new Map<string, StepBits>();
  for (const threads of [1, 2, 3, 4]) {
    // A few hundred elements are worth a thread here, so that parts begin anywhere.
    await using device = await createDevice({ exact: true, threads }, { least: 200 });
    assert.equal(device.info.threads, threads);
    for (const [i, [samples, channels, ...spatial]] of SHAPES.entries()) {
      for (const [j, spread] of SPREADS.entries()) {
        if (threads > 1 && (i + j) % 3 !== threads - 2) continue;
        const batch: ExactBatch = {
          ...{ samples, channels, spatial, spread, seed: i + 10 * j, momentum: 0.1, eps: 1e-5 },
          ...{ affine: true, biased: false, relu: j % 2 === 0, residual: i % 2 === 0 },
          dtype: (i + j) % 3 === 0 ? "float16" : "float32",
          weights: (["alike", "mask", "alike", "small", "large"] as const)[(i + 2 * j) % 5],
          perSample: j % 3 === 2,
        };
        const rows = Array.from({ length: samples }, (_, n) => n);
        const first = { format: "channelsFirst", gradFormat: "channelsFirst" } as const;
        // One thread has met all of them.
        const key = `${[i, j]}`;
        if (!wanted.has(key)) wanted.set(key, await exactStep(reference, batch, rows, first));
        const last = { format: "channelsLast", gradFormat: "channelsFirst" } as const;
        for (const formats of [first, last]) {
          assertSame([await exactStep(device, batch, rows, formats)], wanted.get(key)!);
        }
      }
    }
  }
});

Deno.test("exact Wasm says what it is, and refuses what contradicts it", async () => {
  await using device = await wasmDevice({ exact: true });
  assert.equal(device.info.exact, true);
  assert.equal(device.info.arithmetic, "reproducible");
  assert.match(device.info.name, /^Wasm SIMD \(exact, 1 thread\)$/);
  const fast = wasmDevice({ exact: true, arithmetic: "fast" });
  await assert.rejects(fast, /arithmetic of an exact device must be "reproducible": .*"fast"/);
  // @ts-expect-error No GPU is exact.
  await assert.rejects(requestWebGpuDevice({ exact: true }), (error) => {
    assert(bn.isDeviceError(error));
    assert.match(
      error.message,
      /exact must be false on a GPU: WGSL lets it flush subnormal numbers/,
    );
    return error.code === "unsupported";
  });
});

Deno.test("exact Wasm merges moments of batches as exactly as it makes them", async () => {
  await using device = await wasmDevice({ exact: true });
  const parts = [[1e30, 1], [-1e30], [0.1, 3e-39, 7]];
  const tensors = [...parts, parts.flat()].map((values) =>
    bn.tensor(device, values, [values.length, 1])
  );
  const [a, b, c, all] = tensors.map((x) => bn.batchMoments(x, { device }));
  const merged = bn.mergeMoments(bn.mergeMoments(c, a, { device }), b, { device });
  const rounded = async ({ data }: bn.Moments<WasmArray>) =>
    device.wires!.moments.rounded!(await device.toWire(data));
  assert.deepEqual(await rounded(merged), await rounded(all));
});

Deno.test("exact Wasm: the elements behind the last whole vector count in how a strip is summed", async () => {
  await using device = await wasmDevice({ exact: true });
  const reference = bn.referenceDevice({ exact: true });
  for (const inner of [17, 18, 19, 1021]) {
    for (let exponent = 10; exponent <= 60; exponent += 5) {
      const values = normalArray(2 * inner, exponent);
      values[inner - 1] = 2 ** exponent + 1;
      const [own, wanted] = ([device, reference] as bn.Device<unknown>[]).map((device) => {
        const x = bn.tensor(device, values, [2, 1, inner]);
        const moments = device.moments({ input: x });
        const statistics = { source: "batch", moments } as const;
        const sums = device.gradientSums({ input: x, gradOutput: x, statistics });
        return [moments, sums].map((statistic) => device.toWireNow!(statistic));
      });
      assert.deepEqual(own, wanted, `${inner} elements, 2^${exponent}`);
    }
  }
});
