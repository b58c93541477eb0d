/** The same bits run after run and machine after machine, and how near they are to float64 far from 0. */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormForward,
  type DType,
  type Format,
  stateFromHost,
  tensor,
} from "../../mod.ts";
import { normalArray, uniforms } from "../random.ts";
import { type Opening, openWasm } from "../wasm_kit.ts";
import { POOL, positions } from "./batches.ts";

/** Numbers that need no function which engines may round differently: sums of uniform ones, exact in float32. */
function plainArray(length: number, seed: number, mean = 0): Float32Array<ArrayBuffer> {
  const uniform = uniforms(seed);
  const step = () => Math.floor(uniform() * 1024) - 512;
  return Float32Array.from({ length }, () => mean + (step() + step() + step()) / 512);
}

interface Case {
  readonly shape: readonly number[];
  readonly format: Format;
  readonly mean?: number;
  /** Whether weight and bias differ from 1 and 0. */
  readonly affine?: boolean;
}

/** y and dx of a fixed batch. */
async function train(opening: Opening, { shape, format, mean = 0, affine = true }: Case) {
  const { device, close } = await openWasm(opening);
  const length = shape.reduce((product, extent) => product * extent, 1);
  const [x, dy] = [plainArray(length, 1, mean), plainArray(length, 2)];
  const state = stateFromHost(device, {
    ...{ numFeatures: shape[1], eps: 1e-5, momentum: 0.1, numBatchesTracked: 0 },
    weight: affine ? plainArray(shape[1], 3, 1) : null,
    bias: affine ? plainArray(shape[1], 4) : null,
    ...{ runningMean: plainArray(shape[1], 5), runningVar: plainArray(shape[1], 6, 4) },
  });
  const put = (values: Float32Array) => tensor(device, values, shape, { format });
  const forward = batchNormForward(state, put(x), { device });
  const back = batchNormBackward(forward.saved, put(dy), { device });
  const after = forward.state;
  const vectors = [back.gradWeight, back.gradBias, after.runningMean, after.runningVar];
  const results = await device.downloadAll!([
    ...[forward.output.data, back.gradInput.data],
    ...vectors.filter((vector) => vector !== null),
  ]);
  await close();
  return { x, dy, y: results.slice(0, length), dx: results.slice(length, 2 * length), results };
}

async function digest(
  { results }: { readonly results: Float32Array<ArrayBuffer> },
): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", results)).toHex().slice(0, 16);
}

const CASES: Readonly<Record<string, Case>> = {
  rows: { shape: [5, 7, 331], format: "channelsFirst", mean: 100 },
  lanes: { shape: [53, 7, 3], format: "channelsFirst", mean: 100 },
  channelsLast: { shape: [11, 37, 29], format: "channelsLast", mean: 100 },
};

/** Of y, dx, gradients of parameters and running statistics; made once, and the same on every machine. */
const DIGESTS: Readonly<Record<string, string>> = {
  rows: "38e872b52fe077ef",
  lanes: "ec6badfbd9567aec",
  channelsLast: "ae9198c219795d30",
};

/** The largest difference from float64 arithmetic, by two passes, without weight and bias. */
function errors(
  { shape, format }: Case,
  { x, dy, y, dx }: Readonly<Record<"x" | "dy" | "y" | "dx", Float32Array>>,
): { readonly y: number; readonly dx: number } {
  const [batch, channels] = shape;
  const inner = shape.slice(2).reduce((product, extent) => product * extent, 1);
  const count = batch * inner;
  const at = positions(shape, format);
  const worst = { y: 0, dx: 0 };
  for (let c = 0; c < channels; c++) {
    const each = (body: (p: number) => void) => {
      for (let n = 0; n < batch; n++) for (let i = 0; i < inner; i++) body(at(n, c, i));
    };
    let [mean, m2, sum, product] = [0, 0, 0, 0];
    each((p) => {
      mean += x[p];
      sum += dy[p];
    });
    mean /= count;
    each((p) => {
      m2 += (x[p] - mean) ** 2;
      product += dy[p] * (x[p] - mean);
    });
    const s = 1 / Math.sqrt(m2 / count + 1e-5);
    each((p) => {
      const wantedY = (x[p] - mean) * s;
      const wanted = s * (dy[p] - sum / count - (x[p] - mean) * s * s * product / count);
      worst.y = Math.max(worst.y, Math.abs(y[p] - wantedY));
      worst.dx = Math.max(worst.dx, Math.abs(dx[p] - wanted));
    });
  }
  return worst;
}

/** Registers the tests. */
export function exactnessTests(): void {
  Deno.test("wasm: reproducible arithmetic gives the bits that it gave before, on every machine", async () => {
    const actual: Record<string, string> = {};
    for (const [name, batch] of Object.entries(CASES)) {
      actual[name] = await digest(await train({ build: "simd128" }, batch));
      assert.equal(
        await digest(await train({ build: "simd128" }, batch)),
        actual[name],
        "twice the same",
      );
    }
    assert.deepEqual(actual, DIGESTS);
  });

  Deno.test("wasm: the same number of threads gives the same bits, another differs by rounding", async () => {
    for (const build of ["relaxed", "simd128"] as const) {
      for (const batch of Object.values(CASES)) {
        const [one, two, again] = [
          await train({ build }, batch),
          await train({ build, options: { threads: 2 }, least: 32 }, batch),
          await train({ build, options: { threads: 2 }, least: 32 }, batch),
        ];
        assert.equal(await digest(two), await digest(again));
        // Results are below 8, and both are within 4 units in the last place of the exact ones.
        one.y.forEach((value, i) => assert(Math.abs(value - two.y[i]) <= 8 * 8 * 2 ** -23));
        one.dx.forEach((value, i) => assert(Math.abs(value - two.dx[i]) <= 8 * 8 * 2 ** -23));
      }
    }
  });

  Deno.test("wasm: far from 0, y and dx are as near to float64 as next to it", async () => {
    // A ResNet's sizes, with fewer samples where they only take time.
    const cases: Case[] = [
      { shape: [8, 64, 14, 14], format: "channelsFirst" },
      { shape: [8, 64, 14, 14], format: "channelsLast" },
      { shape: [512, 33], format: "channelsFirst" },
      { shape: [64, 24, 3, 3], format: "channelsFirst" },
    ];
    for (const build of ["relaxed", "simd128"] as const) {
      for (const batch of cases) {
        for (const mean of [0, 1e3, 1e6]) {
          const placed = { ...batch, mean, affine: false };
          const { y, dx } = errors(placed, await train({ build }, placed));
          // Values are below 4, where float32 has steps of 2^-22: four halves of one make 4.8e-7, a sum of three terms twice that.
          const bound = 1e-6;
          assert(y <= bound && dx <= bound, `${JSON.stringify(placed)} ${build}: y ${y}, dx ${dx}`);
        }
      }
    }
  });

  Deno.test("wasm: moments hold with first values far from all others, in every layout", async () => {
    const layouts: readonly (readonly [readonly number[], Format, number?])[] = [
      [[16, 1, 784], "channelsFirst"],
      [[12_544, 1], "channelsFirst"],
      [[4, 2, 1568], "channelsFirst"],
      [[4, 2, 1568], "channelsLast"],
      [[896, 2, 7], "channelsFirst"],
      [[196, 64], "channelsFirst"],
      // A whole first row, so that its mean is no shift for the rest.
      [[4096, 1, 16], "channelsFirst", 16],
      [[4096, 16], "channelsFirst", 64],
    ];
    for (const build of ["relaxed", "simd128"] as const) {
      const { device, close } = await openWasm({ build });
      for (const [shape, format, first = 1] of layouts) {
        for (const outlier of [100, 1e4]) {
          const values = normalArray(shape.reduce((a, b) => a * b), 3);
          values.fill(outlier, 0, first);
          const moments = device.moments({ input: tensor(device, values, shape, { format }) });
          const wire = await device.toWire(moments);
          const inner = shape.slice(2).reduce((product, extent) => product * extent, 1);
          const at = positions(shape, format);
          const [channels, count] = [shape[1], shape[0] * inner];
          assert.equal(wire[0], count);
          for (let c = 0; c < channels; c++) {
            const channel = Array.from(
              { length: count },
              (_, k) => values[at(Math.floor(k / inner), c, k % inner)],
            );
            const mean = channel.reduce((a, b) => a + b) / count;
            const m2 = channel.reduce((total, value) => total + (value - mean) ** 2, 0);
            const std = Math.sqrt(m2 / count);
            const what = `${shape} ${format} ${build}, ${outlier}, channel ${c}`;
            // Until the shift moves, after 16 rows at most, squares are of distances to an outlier that is one of them:
            // its share of m2 is at least a 16th of theirs, so that 2^-24 of each may come to 2^-20 of m2.
            const [far, off] = [
              Math.abs(wire[1 + c] - mean) / std,
              wire[1 + channels + c] / m2 - 1,
            ];
            assert(far <= 2 ** -22, `${what}: mean off by ${far} std`);
            assert(Math.abs(off) <= 2 ** -20, `${what}: m2 off by ${off}`);
          }
        }
      }
      await close();
    }
  });

  Deno.test("wasm: sums over tensors that are walked in two halves hold, on one thread and two", async () => {
    // 16 MiB and more, by rows that do not halve, of one channel and of several; by lanes, with and without a rest.
    const layouts: readonly (readonly [readonly number[], Format, number])[] = [
      [[5, 3, 300_007], "channelsFirst", 1],
      [[1025, 1, 4099], "channelsFirst", 1],
      [[67, 2, 65_539], "channelsFirst", 2],
      [[70_001, 64], "channelsFirst", 1],
      [[1, 3, 1_400_003], "channelsLast", 1],
    ];
    for (const [shape, format, threads] of layouts) {
      const { device, close } = await openWasm({ options: { threads } });
      const [batch, channels] = shape;
      const inner = shape.slice(2).reduce((product, extent) => product * extent, 1);
      const [at, count] = [positions(shape, format), batch * inner];
      const values = new Float32Array(count * channels);
      const expected: number[][] = [];
      for (let c = 0; c < channels; c++) {
        const each = (body: (p: number) => void) => {
          for (let n = 0; n < batch; n++) for (let i = 0; i < inner; i++) body(at(n, c, i));
        };
        // Channels differ, so that none passes for another.
        let [sum, m2] = [0, 0];
        each((p) => {
          values[p] = 1000 + 3 * c + (1 + c % 7) * POOL[p % POOL.length];
          sum += values[p];
        });
        each((p) => m2 += (values[p] - sum / count) ** 2);
        expected.push([sum / count, m2]);
      }
      const input = tensor(device, values, shape, { format });
      const moments = device.moments({ input });
      const wire = await device.toWire(moments);
      const statistics = { source: "batch", moments } as const;
      const sums = await device.toWire(
        device.gradientSums({ input, gradOutput: input, statistics }),
      );
      expected.forEach(([mean, m2], c) => {
        const far = Math.abs(wire[1 + c] - mean) / Math.sqrt(m2 / count);
        const off = Math.abs(wire[1 + channels + c] / m2 - 1);
        assert(far <= 2 ** -22 && off <= 2 ** -22, `${shape} ${format}, ${c}: ${far}, ${off}`);
        // With x for dy the sums are count * mean and m2; the terms of the latter are mean * (x - mean).
        const dy = Math.abs(sums[c] / (count * mean) - 1);
        const product = Math.abs(sums[channels + c] - m2) / (mean * Math.sqrt(m2 * count));
        assert(
          dy <= 2 ** -22 && product <= 2 ** -22,
          `${shape} ${format}, ${c}: ${dy}, ${product}`,
        );
      });
      await close();
    }
  });

  Deno.test("wasm: addScaled() rounds once, whatever the lengths and storages", async () => {
    const { device, close } = await openWasm({ options: { threads: 2 }, least: 32 });
    const stored = (values: Float32Array, dtype: DType) =>
      dtype === "float16" ? Float32Array.from(Float16Array.from(values)) : values;
    for (const length of [0, 1, 2, 3, 4, 5, 97, 4096, 4099, 8195]) {
      for (
        const [of, by] of [["float32", "float32"], ["float16", "float32"], [
          "float32",
          "float16",
        ]] as const
      ) {
        const [x, y] = [
          stored(normalArray(length, 1), of),
          stored(normalArray(length, 2, 0, 10), by),
        ];
        for (const scale of [-0.1, 1e-3, 1 / 3]) {
          const sum = device.addScaled({ x: device.upload(x, of), y: device.upload(y, by), scale });
          const expected = stored(x.map((value, i) => value + scale * y[i]), of);
          assert.deepEqual(await device.download(sum), expected, `${length} ${of} ${by}`);
        }
      }
    }
    await close();
  });

  Deno.test("wasm: counts are exact, and a batch that is empty has moments of 0", async () => {
    const { device, close } = await openWasm({});
    for (const shape of [[0, 3], [0, 3, 7], [5, 3, 0], [1, 3], [7, 3, 11], [70_001, 3]]) {
      const length = shape.reduce((product, extent) => product * extent, 1);
      const values = new Float32Array(length).fill(0.1);
      for (const format of ["channelsFirst", "channelsLast"] as const) {
        const wire = await device.toWire(
          device.moments({ input: tensor(device, values, shape, { format }) }),
        );
        const mean = length > 0 ? Math.fround(0.1) : 0;
        assert.deepEqual([...wire], [length / 3, mean, mean, mean, 0, 0, 0], `${shape} ${format}`);
      }
    }
    await close();
  });
}
