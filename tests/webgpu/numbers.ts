/** Numbers: WebGPU against the reference device, at shapes that divide nothing, through windows, far from 0. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  batchNormInferBackward,
  type BatchNormState,
  type Device,
  type DType,
  type Format,
  referenceDevice,
  stateFromHost,
  stateToHost,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import { assertClose, EPSILON } from "../kit.ts";
import { fewOf } from "../few.ts";
import { normalArray, normals } from "../random.ts";
import { type Opener, poison } from "../webgpu_kit.ts";
import { cut, layOut, slicesOf, tileOf } from "../../kernels/webgpu/plan.ts";
import { elementsOf } from "../../kernels/wgsl/tiles.ts";
import { unwrap, type WebGpuArray, wrap } from "../../kernels/webgpu_device.ts";

/** One batch and what is done with it. */
interface Batch {
  readonly shape: readonly number[];
  readonly format: Format;
  readonly gradFormat: Format;
  readonly residual: Format | null;
  readonly relu: boolean;
  readonly scale: boolean;
  readonly bias: boolean;
  readonly dtype: DType;
  readonly seed: number;
  /** Weights of examples: for each place, for each sample, or none. */
  readonly weights?: "perPlace" | "perSample";
  /** Whether nothing but the forward pass of training is wanted. */
  readonly forwardOnly?: true;
}

const NAMES = ["y", "dx", "dweight", "dbias", "dresidual", "mean", "variance", "z", "dz"] as const;

/** Everything that the local functions make of a batch, tensors in the batch's own memory orders. */
async function results<A>(device: Device<A>, batch: Batch): Promise<(Float32Array | null)[]> {
  const { shape, format, gradFormat, residual, relu, scale, bias, dtype, seed } = batch;
  const length = shape.reduce((product, extent) => product * extent, 1);
  const channels = shape[1];
  const stored = (values: Float32Array) =>
    dtype === "float16" ? Float32Array.from(Float16Array.from(values)) : values;
  const put = (at: number, format: Format, mean = 0): Tensor<A> =>
    tensor(device, stored(normalArray(length, seed + at, mean)), shape, { dtype, format });
  const state = stateFromHost(device, hostState(channels, scale, bias, seed));
  const input = put(1, format, 3);
  const options = {
    ...(relu && { activation: "relu" as const }),
    ...(residual && { residual: put(2, residual) }),
    ...weighing(device, batch),
  };
  const gradOutput = put(3, gradFormat);
  const forward = batchNormForward(state, input, { device }, options);
  const after = await stateToHost(device, forward.state);
  const [mean, variance] = [after.runningMean, after.runningVar];
  if (batch.forwardOnly) {
    const y = await toArray(device, forward.output);
    return [y, null, null, null, null, mean, variance, null, null];
  }
  const back = batchNormBackward(forward.saved, gradOutput, { device });
  const inferred = batchNormInfer(state, input, { device }, options);
  const evaluated = batchNormInferBackward(state, input, gradOutput, { device }, options);
  const read = (value: Tensor<A> | null | undefined) =>
    value ? toArray(device, value) : Promise.resolve(null);
  const vector = (value: A | null) => value ? device.download(value) : Promise.resolve(null);
  return await Promise.all([
    read(forward.output),
    read(back.gradInput),
    vector(back.gradWeight),
    vector(back.gradBias),
    read(back.gradResidual),
    Promise.resolve(mean),
    Promise.resolve(variance),
    read(inferred),
    read(evaluated.gradInput),
  ]);
}

/** Weights of a batch, some of them 0. */
function weighing<A>(device: Device<A>, { shape, seed, weights }: Batch) {
  if (weights === undefined) return {};
  const [batch, , ...spatial] = shape;
  const own = weights === "perSample" ? [batch, 1] : [batch, 1, ...spatial];
  const length = own.reduce((product, extent) => product * extent, 1);
  const values = normalArray(length, seed + 9).map((value) => Math.max(0, 1 + value));
  return { weights: tensor(device, values, own) };
}

/** A layer's state on the host. */
export function hostState(
  channels: number,
  scale: boolean,
  bias: boolean,
  seed: number,
): BatchNormState<Float32Array> {
  const normal = normals(seed);
  const vector = (mean: number) => Float32Array.from({ length: channels }, () => mean + normal());
  return {
    numFeatures: channels,
    eps: 1e-5,
    momentum: 0.1,
    weight: scale ? vector(1) : null,
    bias: bias ? vector(0) : null,
    runningMean: vector(3),
    runningVar: vector(0).map((value) => value * value + 0.5),
    numBatchesTracked: 0,
  };
}

/** The largest weight / sqrt(variance + eps) of a batch: what gradients are multiplied with. */
async function steepest({ shape, format, dtype, scale, bias, seed }: Batch): Promise<number> {
  const device = referenceDevice();
  const { weight, eps, runningVar } = hostState(shape[1], scale, bias, seed);
  const length = shape.reduce((product, extent) => product * extent, 1);
  const input = tensor(device, normalArray(length, seed + 1, 3), shape, { dtype, format });
  const [count, ...wire] = await device.toWire(device.moments({ input }));
  return wire.slice(shape[1]).reduce((most, m2, c) => {
    const variance = Math.min(m2 / count, runningVar![c]);
    return Math.max(most, Math.abs(weight?.[c] ?? 1) / Math.sqrt(variance + eps));
  }, 1);
}

/**
 * Compares with the reference device, whose arithmetic is float64: a few units in the last place of the largest terms.
 * Values are below 8, and so are normalized ones times the weight; gradients of the input are that times the steepest
 * channel; sums grow with the root of their length. Next to 0, ReLU may let through on one device what it holds back on
 * the other, so that with it only what is continuous is compared; the suites compare its gradients away from 0.
 */
async function assertParity<A>(device: Device<A>, batch: Batch): Promise<void> {
  const [actual, expected] = [
    await results(device, batch),
    await results(referenceDevice(), batch),
  ];
  const { shape, dtype, relu } = batch;
  const count = shape.reduce((product, extent) => product * extent, 1) / shape[1];
  const steep = await steepest(batch);
  for (const [i, name] of NAMES.entries()) {
    const [is, wanted] = [actual[i], expected[i]];
    assert.equal(is === null, wanted === null, name);
    if (is === null || wanted === null || (relu && name.startsWith("d"))) continue;
    const tensorlike = ["y", "dx", "z", "dz", "dresidual"].includes(name);
    const storage = tensorlike ? dtype : "float32";
    const size = name.startsWith("dx") || name.startsWith("dz")
      ? 8 * steep
      : tensorlike
      ? 8
      : 8 + 4 * Math.sqrt(count);
    const absolute = 4 * EPSILON.float32 * size + (storage === "float16" ? 2 ** -23 : 0);
    const relative = 8 * EPSILON[storage];
    assertClose(is, wanted, { absolute, relative }, `${JSON.stringify(batch)}: ${name}`);
  }
}

const PLAIN = {
  format: "channelsFirst",
  gradFormat: "channelsFirst",
  residual: null,
  relu: false,
  scale: true,
  bias: true,
  dtype: "float32",
  seed: 1,
} as const;

/** Registers the tests of numbers. */
export function numberTests({ test, tier }: Opener): void {
  const heavy = tier === "full";
  const anything = (float16: boolean, largest: number, ways: number): fc.Arbitrary<Batch> => {
    const format = fc.constantFrom<Format>("channelsFirst", "channelsLast");
    const way = fc.record({
      channels: fc.oneof(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 10, max: 300 }),
        fc.constantFrom(63, 64, 65, 255, 256, 257),
      ),
      format,
      gradFormat: format,
      residual: fc.option(format),
      relu: fc.boolean(),
      scale: fc.boolean(),
      bias: fc.boolean(),
      dtype: float16 ? fc.constantFrom<DType>("float32", "float16") : fc.constant<DType>("float32"),
    });
    const extents = fc.tuple(
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 70 }),
      fc.integer({ min: 1, max: 70 }),
    );
    return fc.tuple(fewOf(way, ways), extents, fc.nat(2 ** 20)).map(
      ([{ channels, ...way }, [n, h, w], seed]) => {
        // Large in one extent at a time.
        const height = Math.max(1, Math.min(h, Math.floor(largest / (n * channels * w))));
        const width = Math.max(1, Math.min(w, Math.floor(largest / (n * channels))));
        const samples = n * height * width > 1 ? n : 2;
        return { ...way, seed, shape: [samples, channels, height, width] };
      },
    );
  };
  const property = (
    device: Device<unknown>,
    { runs, ways, largest, seed }: Readonly<Record<"runs" | "ways" | "largest" | "seed", number>>,
  ) =>
    fc.assert(
      fc.asyncProperty(
        anything(device.info.float16, largest, ways),
        (batch) => assertParity(device, batch),
      ),
      { numRuns: runs, seed },
    );

  test("equals the reference device at random shapes, with memory full of NaN", {
    everything: true,
    onBlock: poison,
  }, ({ device }) =>
    property(device as Device<unknown>, {
      ...(heavy ? { runs: 40, ways: 8 } : { runs: 8, ways: 3 }),
      ...{ largest: 30_000, seed: 1 },
    }));

  if (heavy) {
    test("equals the reference device through windows of 64 KiB, with memory full of NaN", {
      everything: false,
      options: { maxBindingBytes: 65_536 },
      onBlock: poison,
    }, async ({ device, recording }) => {
      await property(device as Device<unknown>, {
        ...{ runs: 10, ways: 4, largest: 150_000, seed: 2 },
      });
      assert(recording.largestBinding() <= 65_536);
    });

    test("wrapped tensors and vectors that begin anywhere go through windows too", {
      everything: true,
      options: { maxBindingBytes: 65_536 },
    }, async ({ device, recording }) => {
      const dtypes: DType[] = device.info.float16 ? ["float32", "float16"] : ["float32"];
      const wrapped = (tensor: Tensor<WebGpuArray>, lead: number) => {
        const { gpuDevice } = device;
        const { buffer, size } = unwrap(tensor);
        const copy = gpuDevice.createBuffer({ size: size + 1024, usage: 0x80 | 0x4 | 0x8 });
        const encoder = gpuDevice.createCommandEncoder();
        encoder.copyBufferToBuffer(buffer, 0, copy, 4 * lead, size);
        gpuDevice.queue.submit([encoder.finish()]);
        return wrap(device, { buffer: copy, offset: 4 * lead }, tensor.shape, tensor);
      };
      for (const [i, shape] of [[3, 7, 2_003], [1, 3, 40_001], [2, 9_001, 3]].entries()) {
        const dtype = dtypes[i % dtypes.length];
        const length = shape[0] * shape[1] * shape[2];
        const put = (seed: number, format: Format) =>
          tensor(device, normalArray(length, seed), shape, { dtype, format });
        const state = stateFromHost(device, hostState(shape[1], true, true, 4));
        const vector = (array: WebGpuArray | null, lead: number) =>
          wrapped({
            data: array!,
            shape: [1, shape[1]],
            dtype: "float32",
            format: "channelsFirst",
          }, lead)
            .data;
        const lead = {
          ...state,
          weight: vector(state.weight, 3),
          runningMean: vector(state.runningMean, 65),
        };
        const [x, dy] = [put(1, "channelsFirst"), put(2, "channelsLast")];
        const run = async (
          state: BatchNormState<WebGpuArray>,
          x: Tensor<WebGpuArray>,
          dy: Tensor<WebGpuArray>,
        ) => {
          const forward = batchNormForward(state, x, { device });
          const back = batchNormBackward(forward.saved, dy, { device });
          const evaluated = batchNormInfer(state, x, { device });
          return await Promise.all(
            [forward.output, back.gradInput, evaluated].map((t) => toArray(device, t)),
          );
        };
        const [expected, actual] = [
          await run(state, x, dy),
          await run(lead, wrapped(x, 1), wrapped(dy, 129)),
        ];
        const exactly = { absolute: 0, relative: 0 };
        const what = `${shape}, ${dtype}`;
        actual.forEach((values, i) => assertClose(values, expected[i], exactly, what));
      }
      assert(recording.largestBinding() <= 65_536);
    });

    test("windows cut samples, places and channels, in one format and in two", {
      everything: true,
      options: { maxBindingBytes: 65_536 },
      onBlock: poison,
    }, async ({ device, recording }) => {
      const shapes = [
        [2, 1, 40_003], // one channel: one long row
        [1, 3, 20_011], // a channel that fits no window
        [1, 40, 1_001], // a sample that fits none, whose channels do
        [3, 7, 2_000], // samples that do
        [2, 20_003, 2], // more channels than a window has records for
        [33, 1_025], // no spatial extent
      ];
      // Each shape with gradients in its own format and in the other one, the latter with what goes in beside it in turns: all
      // with all would be three times as many kernels.
      for (const [i, shape] of shapes.entries()) {
        const [format, other]: readonly Format[] = i % 2 === 0
          ? ["channelsFirst", "channelsLast"]
          : ["channelsLast", "channelsFirst"];
        const beside = [
          { weights: "perPlace" },
          { residual: format, relu: true },
          { weights: "perSample" },
        ] as const;
        await assertParity(device, { ...PLAIN, shape, format, gradFormat: format });
        await assertParity(device, {
          ...{ ...PLAIN, shape, format: other, gradFormat: format },
          ...beside[i >> 1],
        });
      }
      assert(
        recording.largestBinding() <= 65_536,
        `${recording.largestBinding()} bytes were bound`,
      );
    });

    test("windows of 1 MiB and whole bindings give the same numbers", {
      everything: true,
      options: { maxBindingBytes: 2 ** 20 },
    }, async ({ device }) => {
      await assertParity(device, { ...PLAIN, shape: [5, 13, 97, 101] });
      await assertParity(device, { ...PLAIN, shape: [5, 13, 97, 101], format: "channelsLast" });
    });

    test(
      "65,536 channels and more than a grid is wide",
      { everything: true },
      async ({ device }) => {
        await assertParity(device, { ...PLAIN, shape: [2, 65_536, 1] });
        await assertParity(device, { ...PLAIN, shape: [2, 70_001, 3] });
        await assertParity(device, { ...PLAIN, shape: [2, 70_001, 3], format: "channelsLast" });
      },
    );

    test("4,096 channels, whose records fill a window, through windows of 64 KiB", {
      everything: true,
      options: { maxBindingBytes: 65_536 },
      onBlock: poison,
    }, async ({ device, recording }) => {
      await assertParity(device, { ...PLAIN, shape: [3, 4_096, 2] });
      assert(recording.largestBinding() <= 65_536);
    });

    // A workgroup for each channel, which a software adapter takes a second for in each launch: so the forward pass alone.
    test(
      "65,536 channels, whose records fill a window and whose grid wraps, through windows of 1 MiB",
      {
        everything: true,
        options: { maxBindingBytes: 2 ** 20 },
        onBlock: poison,
      },
      async ({ device, recording }) => {
        await assertParity(device, { ...PLAIN, shape: [3, 65_536, 2], forwardOnly: true });
        assert(recording.largestBinding() <= 2 ** 20);
      },
    );

    test("boxes tile every tensor, and fit", { everything: true }, () => {
      const any = fc.record({
        shape: fc.tuple(
          fc.integer({ min: 1, max: 6 }),
          fc.integer({ min: 1, max: 40 }),
          fc.integer({ min: 1, max: 40 }),
        ),
        formats: fc.array(fc.constantFrom<Format>("channelsFirst", "channelsLast"), {
          minLength: 1,
          maxLength: 3,
        }),
        elements: fc.integer({ min: 41, max: 500 }),
        channels: fc.integer({ min: 1, max: 50 }),
        packs: fc.boolean(),
      });
      fc.assert(fc.property(any, ({ shape, formats, elements, channels, packs }) => {
        const ground = layOut(shape, formats, packs);
        const { geometry, strides, pack } = ground;
        const { boxes, cells } = cut(geometry, strides, elements, channels);
        const seen = new Map<string, number>();
        for (const box of boxes) {
          assert(box.channels <= channels && box.cell < cells);
          for (const { sample, channel, place } of strides) {
            const covered = (box.samples - 1) * sample + (box.channels - 1) * channel +
              (box.inner - 1) * place + 1;
            assert(covered <= elements, `${covered} of ${elements}`);
          }
          for (let n = 0; n < box.samples; n++) {
            for (let c = 0; c < box.channels; c++) {
              for (let i = 0; i < box.inner; i++) {
                const key = `${box.sample + n} ${box.channel + c} ${box.place + i}`;
                assert(!seen.has(key));
                seen.set(key, box.cell);
              }
            }
          }
        }
        assert.equal(seen.size * elementsOf(pack), shape[0] * shape[1] * shape[2]);
        const slices = slicesOf(geometry, boxes[0], cells, tileOf(ground, 64));
        assert(slices >= 1 && (slices === 1 || slices * cells <= 1024));
      }));
      assert.throws(() => cut({ samples: 1, channels: 2, inner: 3 }, [], 100, 0), RangeError);
    });

    test("a tensor above 128 MiB is processed in windows of the device's own limit", {
      everything: false,
    }, async ({ device }) => {
      // Channel c has the values c + 1 and c + 3 alternately: mean c + 2, variance 1.
      const [samples, channels, inner] = [3, 5, 2_300_001 + 2 ** 5];
      const values = new Float32Array(samples * channels * inner);
      for (let row = 0, at = 0; row < samples * channels; row++) {
        for (let i = 0; i < inner; i++, at++) values[at] = row % channels + 1 + 2 * ((i + row) % 2);
      }
      assert(values.byteLength > 2 ** 27 && values.byteLength <= 2 ** 28, `${values.byteLength}`);
      assert(device.gpuDevice.limits.maxStorageBufferBindingSize <= 2 ** 27);
      const state = stateFromHost(device, {
        ...hostState(channels, false, false, 1),
        ...{
          momentum: 1,
          eps: 0,
          runningMean: new Float32Array(5),
          runningVar: new Float32Array(5),
        },
      });
      const input = tensor(device, values, [samples, channels, inner]);
      const { output, state: next } = batchNormForward(state, input, { device });
      const { runningMean, runningVar } = await stateToHost(device, next);
      assertClose(runningMean!, [2, 3, 4, 5, 6], { absolute: 1e-6, relative: 0 }, "mean");
      assertClose(runningVar!, [1, 1, 1, 1, 1], { absolute: 1e-6, relative: 0 }, "variance");
      const y = await toArray(device, output);
      const wrong = y.findIndex((value, at) => {
        const channel = Math.floor(at / inner) % channels;
        return Math.abs(value - (values[at] - channel - 2)) > 2e-6;
      });
      assert.equal(wrong, -1, `y[${wrong}] = ${y[wrong]}`);
    });
  }
}
