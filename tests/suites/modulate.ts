/** Scale and offset per sample, and the copies that they need, on a device. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  batchNormInfer,
  type Device,
  type DType,
  type Format,
  initBatchNorm,
  modulate,
  modulateBackward,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import golden from "../golden/rules.json" with { type: "json" };
import { assertClose, type DeviceKit, EPSILON, testsOf, throwsLike } from "../kit.ts";
import { permute } from "../oracle.ts";
import { normalArray } from "../random.ts";
import { census } from "../recording.ts";

const FORMATS: readonly Format[] = ["channelsFirst", "channelsLast"];

/** Registers the tests of modulation for a device. */
export function modulateSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const dtypes = (device: Device<A>): readonly DType[] =>
    device.info.float16 ? ["float32", "float16"] : ["float32"];

  test("arrange() has the bits of the samples, whichever is freed first", async (device) => {
    for (const dtype of dtypes(device)) {
      for (const each of [1, 3, 15, 32]) {
        const values = normalArray(5 * each, 11).map((v) => Math.round(v * 64) / 64);
        const cut = (from: number, to: number) => [...values.slice(from * each, to * each)];
        const input = tensor(device, values, [5, each], { dtype });
        const part = (from: number, to: number) => ({ input, from, to });
        const one = device.arrange!({ parts: [part(1, 4)] });
        const none = device.arrange!({ parts: [part(2, 2)] });
        const own = { ...input, data: one, shape: [3, each] };
        const many = device.arrange!({
          parts: [part(4, 5), { input: own, from: 2, to: 3 }, part(2, 2), part(0, 3)],
        });
        device.free(input.data);
        const next = tensor(device, new Float32Array(5 * each), [5, each], { dtype });
        assert.deepEqual([...await device.download(one)], cut(1, 4), `${dtype} ${each}`);
        assert.deepEqual([...await device.download(none)], []);
        const wanted = [...cut(4, 5), ...cut(3, 4), ...cut(0, 3)];
        assert.deepEqual([...await device.download(many)], wanted, `${dtype} ${each}`);
        device.free(one, none, many, next.data);
      }
    }
  });

  test("conditional batch norm has PyTorch's numbers, on one rank and on three, in both formats and dtypes", async (device) => {
    const { shape, x, dy, residual, scale, offset, eps, results } = golden.conditional;
    const [, channels, ...spatial] = shape;
    const each = x.length / shape[0];
    const inner = each / channels;
    const pairs = [[1, 1], [0, 1], [0, 0], [1, 0]].map((pair) => pair.map((i) => FORMATS[i]));
    for (const [d, dtype] of dtypes(device).entries()) {
      // Where each pair has kernels of its own they are tried with one storage.
      for (const [format, gradFormat] of kit.ways ? pairs.slice(2 * d, 2 * d + 2) : pairs) {
        for (const counts of [[shape[0]], [2, 0, shape[0] - 2]]) {
          const starts = counts.map((_, r) => counts.slice(0, r).reduce((a, b) => a + b, 0));
          const parts = await runRanks(counts.length, async (group) => {
            const [n, at] = [counts[group.rank], starts[group.rank]];
            const put = (values: readonly number[], format: Format) => {
              const own = Float32Array.from(values.slice(at * each, (at + n) * each));
              const lying = format === "channelsLast"
                ? permute(own, { channels, inner }, format)
                : own;
              return tensor(device, lying, [n, channels, ...spatial], { dtype, format });
            };
            const rows = (values: readonly number[]) =>
              tensor(device, values.slice(at * channels, (at + n) * channels), [n, channels]);
            const effects = { device, group };
            const { device: counted, alive } = census(device);
            const state = initBatchNorm(device, channels, { affine: false, eps });
            const forward = await syncBatchNormForward(state, put(x, format), effects);
            const before = alive();
            const { output, saved } = modulate(
              forward.output,
              { scale: rows(scale), offset: rows(offset) },
              { device: counted },
              { activation: "relu", residual: put(residual, gradFormat) },
            );
            const back = modulateBackward(saved, put(dy, gradFormat), { device: counted });
            assert.equal(alive() - before, 5, "results alone stay");
            assert.deepEqual([output.format, back.gradResidual!.format], [format, gradFormat]);
            const { gradInput } = await syncBatchNormBackward(
              forward.saved,
              back.gradInput,
              effects,
            );
            const read = async (of: Tensor<A>) => {
              const values = await toArray(device, of);
              return of.shape.length > 2 && of.format === "channelsLast"
                ? permute(values, { channels, inner }, "channelsFirst")
                : values;
            };
            return {
              y: await read(output),
              dx: await read(gradInput),
              dresidual: await read(back.gradResidual!),
              dscale: await read(back.gradScale!),
              doffset: await read(back.gradOffset!),
            };
          });
          // The normalized batch and dy are rounded to the storage on the way; values are below 16.
          const slack = 16 * kit.ulps * EPSILON[dtype];
          for (const name of ["y", "dx", "dresidual", "dscale", "doffset"] as const) {
            const is = parts.flatMap((part) => [...part[name]]);
            const what = `${name}, ${dtype} ${format} ${gradFormat} ${counts}`;
            assertClose(is, results[name], { absolute: slack, relative: slack }, what);
          }
        }
      }
    }
  });

  test("a modulation is the affine map of a batch whose samples share it, in evaluation too", async (device) => {
    const numbers = fc.array(fc.double({ min: -2, max: 2, noNaN: true }), {
      minLength: 3,
      maxLength: 3,
    });
    await fc.assert(
      fc.asyncProperty(numbers, numbers, fc.constantFrom(...FORMATS), async (w, b, format) => {
        const x = tensor(device, normalArray(24, 5), [2, 3, 4], { format });
        const vector = (values: readonly number[]) => Float32Array.from(values);
        const state = initBatchNorm(device, 3);
        const own = { ...state, weight: device.upload(vector(w)), bias: device.upload(vector(b)) };
        const whole = batchNormInfer(own, x, { device });
        const plain = batchNormInfer(state, x, { device });
        const [scale, offset] = [w, b].map((v) => tensor(device, [...v, ...v], [2, 3]));
        const { output } = modulate(plain, { scale, offset }, { device });
        const slack = 8 * kit.ulps * EPSILON.float32;
        const close = { absolute: slack, relative: slack };
        assertClose(await toArray(device, output), await toArray(device, whole), close, "y");
      }),
      { numRuns: 5, seed: 7 },
    );
  });

  test("a modulation of no samples, no places, or without scale or offset has the gradients of that", async (device) => {
    for (const shape of [[0, 3, 2], [2, 3, 0]]) {
      const x = tensor(device, [], shape);
      const rows = tensor(device, new Float32Array(shape[0] * 3).fill(1), [shape[0], 3]);
      const { output, saved } = modulate(x, { scale: rows, offset: rows }, { device });
      const back = modulateBackward(saved, output, { device });
      assert.deepEqual(await toArray(device, back.gradScale!), new Float32Array(shape[0] * 3));
      assert.deepEqual(await toArray(device, back.gradOffset!), new Float32Array(shape[0] * 3));
      assert.deepEqual(back.gradInput.shape, shape);
    }
    const x = tensor(device, [1, 2, 3, 4], [2, 2]);
    const { output, saved } = modulate(x, {}, { device });
    assert.notEqual(output.data, x.data);
    const back = modulateBackward(saved, x, { device });
    assert.deepEqual([back.gradScale, back.gradOffset], [null, null]);
    const slack = { absolute: 0, relative: 2 * kit.ulps * EPSILON.float32 };
    for (const same of [output, back.gradInput]) {
      assertClose(await toArray(device, same), [1, 2, 3, 4], slack, "the same");
    }
  });

  test("a scale that is not (N, C) in float32 is refused", (device) => {
    const x = tensor(device, [1, 2, 3, 4], [2, 2]);
    const wrong = (scale: unknown) => () => modulate(x, { scale: scale as Tensor<A> }, { device });
    throwsLike(
      wrong(tensor(device, [1, 2], [1, 2])),
      TypeError,
      /the scale's shape must be the input's \(N, C\)/,
    );
    throwsLike(
      wrong(device.upload(Float32Array.of(1, 2))),
      TypeError,
      /the scale must be a tensor/,
    );
    throwsLike(
      () => modulate(x, { gain: 1 } as object, { device }),
      TypeError,
      /options may be scale, offset/,
    );
    const { saved } = modulate(x, { scale: tensor(device, [1, 2, 3, 4], [2, 2]) }, { device });
    throwsLike(
      () => modulateBackward({ saved } as never, x, { device }),
      TypeError,
      /saved must be that of modulate: current kind is undefined/,
    );
    throwsLike(
      () => modulateBackward(saved, tensor(device, [1, 2], [1, 2]), { device }),
      TypeError,
      /gradOutput's shape/,
    );
  });
}
