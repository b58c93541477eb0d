/** The Wasm device against the reference device, at shapes that divide nothing, on guarded memory. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { type DType, type Format, referenceDevice } from "../../mod.ts";
import { assertClose, EPSILON, type Kit, register } from "../kit.ts";
import { type Opening, openWasm } from "../wasm_kit.ts";
import {
  type Batch,
  lengthOf,
  type Numbers,
  numbersOf,
  PLAIN,
  positions,
  type Results,
  resultsOf,
} from "./batches.ts";

/** Units in the last place of the largest terms: those of the device's kit, and one for the reference's own rounding. */
const ULPS = 5;

/** The sizes of the terms of every result's formula, element by element in the result's own order. */
type Terms = Readonly<Record<string, Float64Array>>;

/**
 * What the terms of each formula add up to without cancellation. A normalized value counts as 1 at least: next to 0 the
 * mean is what resolves. mean / std, by which a careless formula loses digits, does not occur.
 */
function termsOf(batch: Batch, numbers: Numbers, training: boolean): Terms {
  const { shape, format, gradFormat, residual } = batch;
  const { state, x, dy } = numbers;
  const channels = shape[1];
  const inner = shape.slice(2).reduce((product, extent) => product * extent, 1);
  const count = shape[0] * inner;
  const [at, atDy] = [positions(shape, format), positions(shape, gradFormat)];
  const atResidual = positions(shape, residual ?? format);
  const [y, dx] = [new Float64Array(x.length), new Float64Array(x.length)];
  const [dweight, dbias] = [new Float64Array(channels), new Float64Array(channels)];
  const [means, variances] = [new Float64Array(channels), new Float64Array(channels)];
  const each = (c: number, body: (n: number, i: number) => void) => {
    for (let n = 0; n < shape[0]; n++) for (let i = 0; i < inner; i++) body(n, i);
    return c;
  };
  for (let c = 0; c < channels; c++) {
    let [mean, m2] = [0, 0];
    each(c, (n, i) => mean += x[at(n, c, i)] / count);
    each(c, (n, i) => m2 += (x[at(n, c, i)] - mean) ** 2);
    means[c] = Math.abs(mean);
    variances[c] = m2 / (count - 1 || 1);
    const variance = training ? m2 / count : state.runningVar![c];
    if (!training) mean = state.runningMean![c];
    const s = 1 / Math.sqrt(variance + state.eps);
    const size = (n: number, i: number) => Math.max(1, Math.abs(x[at(n, c, i)] - mean) * s);
    each(c, (n, i) => {
      const gradient = Math.abs(dy[atDy(n, c, i)]);
      dbias[c] += gradient;
      dweight[c] += gradient * size(n, i);
    });
    const w = Math.abs(state.weight?.[c] ?? 1);
    const b = Math.abs(state.bias?.[c] ?? 0);
    each(c, (n, i) => {
      const added = residual ? Math.abs(numbers.residual[atResidual(n, c, i)]) : 0;
      y[at(n, c, i)] = size(n, i) * w + b + added;
      const gradient = Math.abs(dy[atDy(n, c, i)]);
      dx[at(n, c, i)] = w * s *
        (training ? gradient + dbias[c] / count + size(n, i) * dweight[c] / count : gradient);
    });
  }
  // Old and new statistics may cancel in the running ones.
  const runningMean = means.map((mean, c) => mean + Math.abs(state.runningMean![c]));
  const runningVar = variances.map((variance, c) => variance + state.runningVar![c]);
  return training
    ? { y, dx, dweight, dbias, runningMean, runningVar }
    : { z: y, dz: dx, dzweight: dweight, dzbias: dbias };
}

/** How far results may be from the reference's: a few units in the last place of the terms. */
function tolerances({ dtype }: Batch, results: Results, terms: Terms): Terms {
  // Below 2^-14 float16 is spaced evenly, by 2^-24.
  const subnormal = dtype === "float16" ? ULPS * 2 ** -24 : 0;
  const entries = Object.entries(terms).map(([name, sizes]) => {
    const least = name in results.tensors ? subnormal : 0;
    return [name, sizes.map((size) => ULPS * EPSILON.float32 * size + least)];
  });
  return Object.fromEntries(entries);
}

/** Fails unless results are the reference's but for what is allowed. */
function compare(batch: Batch, actual: Results, expected: Results, allowed: Terms): void {
  const what = (name: string) => `${JSON.stringify(batch)}: ${name}`;
  for (const kind of ["tensors", "vectors"] as const) {
    const storage = kind === "tensors" ? batch.dtype : "float32";
    for (const [name, wanted] of Object.entries(expected[kind])) {
      const is = actual[kind][name];
      assert.equal(is === null, wanted === null, what(name));
      if (is === null || wanted === null) continue;
      const absolute = allowed[name];
      // What only passes through has no rounding.
      const relative = absolute ? ULPS * EPSILON[storage] : 0;
      assertClose(is, wanted, { absolute: absolute ?? 0, relative }, what(name));
    }
  }
}

type Opened = Awaited<ReturnType<typeof openWasm>>;

async function assertParity(devices: readonly Opened[], batch: Batch): Promise<void> {
  const numbers = await numbersOf(batch);
  const expected = await resultsOf(referenceDevice(), batch, numbers);
  const terms = { ...termsOf(batch, numbers, true), ...termsOf(batch, numbers, false) };
  const allowed = tolerances(batch, expected, terms);
  for (const { device, guarded } of devices) {
    compare(batch, await resultsOf(device, batch, numbers), expected, allowed);
    guarded.check();
    assert(guarded.blocks() <= 1, `${guarded.blocks()} blocks are left, of which one is scratch`);
  }
}

async function withDevices(
  openings: readonly Opening[],
  body: (devices: readonly Opened[]) => Promise<void>,
): Promise<void> {
  const devices = await Promise.all(openings.map(openWasm));
  try {
    await body(devices);
  } finally {
    for (const { device } of devices) device[Symbol.dispose]();
  }
  for (const { guarded } of devices) guarded.check();
}

const FORMATS = ["channelsFirst", "channelsLast"] as const;
const DTYPES = ["float32", "float16"] as const;

/** Any batch that has a training gradient: not one value per channel. */
const batches: fc.Arbitrary<Batch> = fc.record({
  shape: fc.tuple(
    fc.integer({ min: 0, max: 40 }),
    fc.oneof(
      { weight: 5, arbitrary: fc.integer({ min: 1, max: 70 }) },
      { weight: 1, arbitrary: fc.constantFrom(127, 130, 1000) },
    ),
    fc.constantFrom<readonly number[]>(
      [],
      [1],
      [2],
      [3],
      [2, 2],
      [5],
      [15],
      [4, 4],
      [17],
      [31],
      [7, 7],
      [64],
      [101],
    ),
  ).map(([n, c, spatial]) => {
    const inner = spatial.reduce((product, extent) => product * extent, 1);
    const batch = Math.min(n, Math.ceil(30_000 / (c * inner)));
    return [batch * inner === 1 ? 2 : batch, c, ...spatial];
  }),
  format: fc.constantFrom<Format>(...FORMATS),
  gradFormat: fc.constantFrom<Format>(...FORMATS),
  residual: fc.option(fc.constantFrom<Format>(...FORMATS)),
  relu: fc.boolean(),
  scale: fc.boolean(),
  bias: fc.boolean(),
  update: fc.boolean(),
  dtype: fc.constantFrom<DType>(...DTYPES),
  seed: fc.nat(1000),
  spread: fc.constantFrom([0, 1], [3, 1], [1e3, 1], [1e6, 1], [-1e3, 1e-2]),
}).map(({ spread: [mean, std], ...batch }) => {
  // float16 ends at 65,504 and has steps of 32 before that.
  const half = batch.dtype === "float16" && Math.abs(mean) > 1e3;
  return { ...batch, mean: half ? 1e3 : mean, std };
});

const builds: readonly Opening[] = [{ build: "relaxed" }, { build: "simd128" }];

/** Registers the tests. */
export function parityTests(): void {
  Deno.test("wasm: both builds equal the reference device at random shapes", () =>
    withDevices(builds, (devices) =>
      fc.assert(
        fc.asyncProperty(batches, (batch) => assertParity(devices, batch)),
        { numRuns: 80, seed: 6 },
      )));

  Deno.test("wasm: three threads that share even small tensors equal the reference device", () =>
    withDevices([{ options: { threads: 3 }, least: 1 }], (devices) =>
      fc.assert(
        fc.asyncProperty(batches, (batch) => assertParity(devices, batch)),
        { numRuns: 60, seed: 7 },
      )));

  Deno.test("wasm: rows around the length of a run equal the reference device", () =>
    withDevices(builds, async (devices) => {
      for (const [i, inner] of [2047, 2049, 4095, 4096, 4097, 8192, 10_001].entries()) {
        for (const dtype of DTYPES) {
          const shape = [2, 2, inner];
          const residual = i % 2 ? FORMATS[i % 3 % 2] : null;
          await assertParity(devices, { ...PLAIN, shape, dtype, residual, relu: i % 3 === 0 });
        }
      }
    }));

  Deno.test("wasm: rows of lanes around the heights of tiles equal the reference device", () =>
    withDevices(builds, async (devices) => {
      // 64 lanes a row. The first tile has 16 rows, the second 64, all others 256; groups have 8, 16 or 32, and what is left over.
      for (const [i, rows] of [1, 7, 8, 9, 15, 16, 17, 33, 79, 80, 81, 335, 337].entries()) {
        const dtype = DTYPES[i % 2];
        const batch = { ...PLAIN, shape: [rows, 64], dtype, relu: i % 3 === 0, mean: 1e3 };
        if (rows > 1) await assertParity(devices, batch);
        // 72 lanes a row of 4 samples, of which the last is not whole.
        const residual = i % 2 ? "channelsLast" : null;
        const shape = [4 * rows + 1, 18, 1];
        await assertParity(devices, { ...PLAIN, shape, dtype: DTYPES[(i + 1) % 2], residual });
      }
    }));

  Deno.test("wasm: rows of one strip, around the heights of blocks, equal the reference device", () =>
    withDevices([...builds, { options: { threads: 2 }, least: 1 }], async (devices) => {
      // 16 lanes a row, or 12 where that is a multiple; the last one is not whole wherever it can be.
      for (const [i, channels] of [2, 3, 4, 6, 8, 12, 16].entries()) {
        for (const [j, rows] of [1, 2, 8, 15, 16, 17, 31, 32, 33, 95, 337].entries()) {
          const lanes = 12 % channels === 0 && 16 % channels > 0 ? 12 : 16;
          const samples = Math.max(2, rows * lanes / channels + (lanes > channels ? 1 : 0));
          const residual = (i + j) % 2 ? FORMATS[1] : null;
          const batch = { ...PLAIN, shape: [samples, channels], residual, mean: 1e3 };
          await assertParity(devices, { ...batch, dtype: "float32", relu: j % 3 === 0 });
        }
      }
    }));

  Deno.test("wasm: rows of more lanes than are widened at once equal the reference device", () =>
    withDevices(builds, async (devices) => {
      const last = { format: "channelsLast", gradFormat: "channelsLast" } as const;
      for (const dtype of DTYPES) {
        await assertParity(devices, { ...PLAIN, ...last, shape: [3, 1025, 5], dtype, relu: true });
        await assertParity(devices, { ...PLAIN, ...last, shape: [11, 1, 601, 3], dtype });
        await assertParity(devices, {
          ...PLAIN,
          shape: [9, 601, 7],
          dtype,
          residual: "channelsFirst",
        });
        await assertParity(devices, { ...PLAIN, shape: [3, 70_001], dtype });
        await assertParity(devices, { ...PLAIN, ...last, shape: [35, 1030], dtype });
      }
    }));

  Deno.test("wasm: parts that begin in the middle of a row equal the reference device", () =>
    withDevices([
      { build: "simd128", options: { threads: 2 } },
      { build: "relaxed", options: { threads: 3 } },
    ], async (devices) => {
      const shapes = [[3, 7, 101, 103], [9, 3, 8191], [201, 1001], [4001, 17, 3], [1, 1, 200_003]];
      for (const [i, shape] of shapes.entries()) {
        assert(lengthOf({ shape }) >= 3 * 65_536, "large enough for three parts");
        await assertParity(devices, {
          ...{ ...PLAIN, shape, dtype: DTYPES[i % 2], relu: i % 2 === 0 },
          ...{ residual: FORMATS[i % 2], gradFormat: FORMATS[(i + 1) % 2], mean: 1e3 },
        });
      }
      const format = "channelsLast";
      await assertParity(devices, { ...PLAIN, shape: [3, 67, 1003], format, dtype: "float16" });
    }));
}

/** Registers the test of large batches. */
export function largeParityTests(kit: Kit): void {
  register(
    kit,
    "rows two at a time, as more than a MiB is walked, equal the reference device",
    () =>
      withDevices(builds, async (devices) => {
        const last = { format: "channelsLast", gradFormat: "channelsLast" } as const;
        const batches = [
          // Rows half the matrix apart: 1031 of 1028 lanes; 580 of 2060 lanes and one that is not whole.
          { shape: [1, 1028, 1031], residual: "channelsLast", relu: true },
          { shape: [9, 1030, 129], relu: true },
          // Neighbours: an even number of rows of 64 lanes, an odd one of 72 and one that is not whole.
          { shape: [2, 64, 8256], residual: "channelsLast" },
          { shape: [1, 18, 58_343] },
          // Blocks of 16 rows of 12 lanes from two halves in turns: 21,874 of them, a rest of 17 rows, and one that is not whole.
          { shape: [1, 3, 1_400_007] },
        ] as const;
        for (const batch of batches) {
          assert(lengthOf(batch) > 1 << 20, "too many elements for strips");
          await assertParity(devices, { ...PLAIN, ...last, ...batch, dtype: "float32", mean: 1e3 });
        }
      }),
  );
}
