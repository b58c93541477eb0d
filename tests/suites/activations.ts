/** Activations with a slope or a bound, on a device: PyTorch's numbers, and every way beside the same formula on the host. */

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type Activation,
  applyLayer,
  backwardLayer,
  batchMoments,
  batchNormBackward,
  batchNormBackwardBackward,
  batchNormBackwardGhost,
  batchNormForward,
  batchNormForwardGhost,
  batchNormInfer,
  batchNormInferBackward,
  batchNormJvp,
  type DType,
  type Format,
  initBatchNorm,
  initLayer,
  modulate,
  modulateBackward,
  normalizeWith,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormBackwardParts,
  syncBatchNormForward,
  syncBatchNormForwardParts,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import golden from "../golden/rules.json" with { type: "json" };
import { fewOf } from "../few.ts";
import { halves } from "../halves.ts";
import { assertClose, type DeviceKit, EPSILON, testsOf, throwsLike } from "../kit.ts";
import { permute } from "../oracle.ts";
import { normalArray } from "../random.ts";
import { compiles } from "./second_order.ts";

const RECTIFIERS: readonly Exclude<Activation, "relu">[] = [
  { negativeSlope: 0.125 },
  { maxValue: 1.5 },
  { negativeSlope: 0.25, maxValue: 1 },
];

/** What an activation makes of a number, and what it lets through of a gradient by the result. */
function formulas({ negativeSlope = 0, maxValue = Infinity }: Exclude<Activation, "relu">) {
  return {
    rectified: (z: number) => z <= 0 ? negativeSlope * z : Math.min(z, maxValue),
    passed: (dy: number, y: number) => y <= 0 ? negativeSlope * dy : y < maxValue ? dy : 0,
  };
}

/** Registers the tests for a device. */
export function activationSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);
  const few = compiles(kit);
  const slackOf = (dtype: DType, of = 16) => {
    const slack = of * kit.ulps * EPSILON[dtype];
    return { absolute: slack, relative: slack };
  };

  test("bounded activations have PyTorch's numbers, over two ranks, with their gradients", async (device) => {
    if (!device.info.passes.includes("rectifier")) return;
    const { shape: [N, C, inner], eps, x, dy, residual, weight, bias } = golden.activations;
    const each = C * inner;
    const dtypes: readonly DType[] = device.info.float16 && !few
      ? ["float32", "float16"]
      : ["float32"];
    // Where each compiles kernels a storage has one memory order.
    const formatsOf = (dtype: DType): readonly Format[] =>
      kit.ways === undefined ? FORMATS : [dtype === "float32" ? "channelsFirst" : "channelsLast"];
    for (const { activation, results } of golden.activations.cases) {
      for (const dtype of dtypes) {
        for (const format of formatsOf(dtype)) {
          const state = {
            ...initBatchNorm(device, C, { eps }),
            weight: device.upload(Float32Array.from(weight)),
            bias: device.upload(Float32Array.from(bias)),
          };
          const parts = await runRanks(2, async (group) => {
            const [from, to] = group.rank === 0 ? [0, 2] : [2, N];
            const put = (values: readonly number[]) => {
              const own = values.slice(from * each, to * each);
              const lying = format === "channelsLast"
                ? permute(own, { channels: C, inner }, format)
                : own;
              return tensor(device, lying, [to - from, C, inner], { dtype, format });
            };
            const read = async (of: Tensor<A>) => {
              const values = await toArray(device, of);
              return of.format === "channelsLast"
                ? [...permute(values, { channels: C, inner }, "channelsFirst")]
                : [...values];
            };
            const effects = { device, group };
            const options = { activation: activation as Activation, residual: put(residual) };
            const forward = await syncBatchNormForward(state, put(x), effects, options);
            const back = await syncBatchNormBackward(forward.saved, put(dy), effects);
            return {
              y: await read(forward.output),
              dx: await read(back.gradInput),
              dresidual: await read(back.gradResidual!),
              dweight: await device.download(back.gradWeight!),
              dbias: await device.download(back.gradBias!),
            };
          });
          const what = `${JSON.stringify(activation)} ${dtype} ${format}`;
          for (const name of ["y", "dx", "dresidual"] as const) {
            const values = parts.flatMap((part) => part[name]);
            assertClose(values, results[name], slackOf(dtype), `${name} ${what}`);
          }
          for (const name of ["dweight", "dbias"] as const) {
            const [a, b] = parts.map((part) => part[name]);
            const close = slackOf(dtype, 64);
            assertClose(a.map((v, i) => v + b[i]), results[name], close, `${name} ${what}`);
          }
        }
      }
    }
  });

  test("what an activation with bounds makes, there, back and twice back, is the formula of what there is without", async (device) => {
    if (!device.info.passes.includes("rectifier")) return;
    const way = fc.record({
      N: fc.integer({ min: 2, max: 40 }),
      C: fc.constantFrom(1, 3, 4, 16, 28, 70),
      inner: fc.constantFrom(1, 5, 16, 33),
      format: fc.constantFrom(...FORMATS),
      half: device.info.float16 ? fc.boolean() : fc.constant(false),
      added: fc.boolean(),
      weighted: fc.boolean(),
    });
    const property = fc.asyncProperty(
      fewOf(way, few ? 1 : kit.ways && 2),
      fc.constantFrom(...RECTIFIERS),
      fc.nat(1000),
      async ({ N, C, inner, format, half, added, weighted }, activation, seed) => {
        const dtype = half ? "float16" as const : "float32" as const;
        const { rectified, passed } = formulas(activation);
        const stored = (values: Float32Array<ArrayBuffer>) => half ? halves(values) : values;
        const put = (values: Float32Array) =>
          tensor(device, values, [N, C, inner], { dtype, format });
        const draw = (seed: number) => stored(normalArray(N * C * inner, seed));
        const [x, dy, r, u] = [1, 2, 3, 4].map((k) => draw(seed + k));
        const weights = device.upload(Float32Array.from({ length: N }, (_, i) => i % 3 / 2));
        const own = {
          ...(added && { residual: put(r) }),
          ...(weighted && device.info.passes.includes("weights") && { weights }),
        };
        const state = { ...initBatchNorm(device, C), bias: device.upload(normalArray(C, seed)) };
        const effects = { device };
        const options = { ...own, activation };
        const plain = batchNormForward(state, put(x), effects, own);
        const there = batchNormForward(state, put(x), effects, options);
        const z = await toArray(device, plain.output);
        const y = await toArray(device, there.output);
        // z itself is rounded to the dtype where it is not rectified.
        const scale = { ...slackOf(dtype, 8), absolute: 4 * kit.ulps * EPSILON[dtype] };
        assertClose(y, z.map(rectified), scale, "y");
        const gated = (values: Float32Array) =>
          stored(Float32Array.from(values, (value, i) => passed(value, y[i])));
        const sums = { absolute: 8 * kit.ulps * EPSILON[dtype] * N * inner, relative: 0 };
        const close = (is: Tensor<A>, wanted: Tensor<A>, what: string) =>
          Promise.all([is, wanted].map((of) => toArray(device, of))).then(([a, b]) =>
            assertClose(a, b, { ...slackOf(dtype, 32) }, what)
          );
        const back = batchNormBackward(there.saved, put(dy), effects);
        const wanted = batchNormBackward(plain.saved, put(gated(dy)), effects);
        await close(back.gradInput, wanted.gradInput, "dx");
        if (added) await close(back.gradResidual!, wanted.gradResidual!, "dresidual");
        for (const name of ["gradWeight", "gradBias"] as const) {
          const [a, b] = [back, wanted].map((grads) => device.download(grads[name]!));
          assertClose(await a, await b, sums, name);
        }
        if (few || !device.info.passes.includes("secondOrder")) return;
        const directions = { input: put(u), bias: state.bias };
        const moved = batchNormJvp(there.saved, directions, effects);
        const free = await toArray(device, batchNormJvp(plain.saved, directions, effects));
        assertClose(await toArray(device, moved), gated(free), slackOf(dtype, 32), "jvp");
        const cotangents = { gradInput: put(u) };
        const twice = batchNormBackwardBackward(there.saved, put(dy), cotangents, effects);
        const same = batchNormBackwardBackward(plain.saved, put(gated(dy)), cotangents, effects);
        await close(twice.gradInput, same.gradInput, "second gradInput");
        const gradGrad = await toArray(device, same.gradGradOutput);
        const second = await toArray(device, twice.gradGradOutput);
        assertClose(second, gated(gradGrad), slackOf(dtype, 32), "gradGradOutput");
      },
    );
    await fc.assert(property, { numRuns: few ? 3 : 16, seed: 31 });
  });

  test("bounds go wherever ReLU does: evaluation, groups, parts, modulation, layers, given moments", async (device) => {
    if (!device.info.passes.includes("rectifier")) return;
    const activation = { negativeSlope: 0.5, maxValue: 0.75 } as const;
    const { rectified, passed } = formulas(activation);
    const [N, C, L] = [4, 3, 4];
    const put = (values: Float32Array) => tensor(device, values, [N, C, L]);
    const [x, dy] = [put(normalArray(N * C * L, 1, 0.5)), normalArray(N * C * L, 2)];
    const state = initBatchNorm(device, C);
    const effects = { device };
    type Run = readonly [Tensor<A>, Tensor<A>];
    const ways: Readonly<
      Record<string, (dy: Tensor<A>, own: { activation?: Activation }) => Run | Promise<Run>>
    > = {
      evaluation: (dy, own) => [
        batchNormInfer(state, x, effects, own),
        batchNormInferBackward(state, x, dy, effects, own).gradInput,
      ],
      groups: (dy, own) => {
        const { output, saved } = batchNormForwardGhost(state, x, effects, { ghost: 3, ...own });
        return [output, batchNormBackwardGhost(saved, dy, effects).gradInput];
      },
      parts: (dy, own) =>
        runRanks(1, async (group): Promise<Run> => {
          const where = { device, group };
          const { outputs, saved } = await syncBatchNormForwardParts(state, [x], where, own);
          const { gradInputs } = await syncBatchNormBackwardParts(saved, [dy], where);
          return [outputs[0], gradInputs[0]];
        }).then(([run]) => run),
      modulation: (dy, own) => {
        const modulation = { scale: tensor(device, normalArray(N * C, 3), [N, C]) };
        const { output, saved } = modulate(x, modulation, effects, own);
        return [output, modulateBackward(saved, dy, effects).gradInput];
      },
      layers: async (dy, own) => {
        const layer = initLayer(device, "batchNorm", C, own);
        const { output, saved } = await applyLayer(layer, x, effects);
        return [output, (await backwardLayer(saved, dy, effects)).gradInput];
      },
      "given moments": (dy, own) => {
        const moments = batchMoments(x, effects);
        const { output, saved } = normalizeWith(state, x, moments, effects, own);
        return [output, batchNormBackward(saved, dy, effects).gradInput];
      },
    };
    for (const [name, way] of Object.entries(ways)) {
      // The others are made of passes that have been compared, and cost kernels.
      if (few && name !== "evaluation") continue;
      const [z] = await way(put(dy), {});
      const [output, gradInput] = await way(put(dy), { activation });
      const y = await toArray(device, output);
      const wanted = (await toArray(device, z)).map(rectified);
      assertClose(y, wanted, slackOf("float32", 4), name);
      const [, gated] = await way(put(dy.map((value, i) => passed(value, y[i]))), {});
      const [is, of] = [gradInput, gated].map((of) => toArray(device, of));
      assertClose(await is, await of, slackOf("float32", 32), `dx of ${name}`);
    }
  });

  test("what is no activation is refused, and a device without bounds names them", (device) => {
    const state = initBatchNorm(device, 1);
    const x = tensor(device, [1, 3], [2, 1]);
    const forward = (activation: unknown) => () =>
      batchNormForward(state, x, { device }, { activation: activation as Activation });
    if (!device.info.passes.includes("rectifier")) {
      throwsLike(forward({ maxValue: 6 }), Error, /must honour rectifier in a pass/);
      return;
    }
    throwsLike(
      forward("gelu"),
      TypeError,
      /activation must be "relu", { negativeSlope, maxValue }/,
    );
    throwsLike(forward(null), TypeError, /activation must be/);
    throwsLike(forward({ slope: 1 }), TypeError, /slope/);
    throwsLike(
      forward({ negativeSlope: -1 }),
      RangeError,
      /negativeSlope must be a finite float32 >= 0/,
    );
    throwsLike(forward({ negativeSlope: NaN }), RangeError, /negativeSlope/);
    throwsLike(forward({ negativeSlope: 1e300 }), RangeError, /negativeSlope/); // Infinite as float32.
    throwsLike(forward({ maxValue: 0 }), RangeError, /maxValue must be a finite float32 > 0/);
    throwsLike(forward({ maxValue: Infinity }), RangeError, /or left out/);
    throwsLike(forward({ maxValue: 1e300 }), RangeError, /maxValue/); // Infinite as float32.
    throwsLike(
      () => initLayer(device, "batchNorm", 1, { activation: { maxValue: -1 } }),
      RangeError,
      /maxValue/,
    );
    const given = { maxValue: 6 };
    const { saved } = batchNormForward(state, x, { device }, { activation: given });
    given.maxValue = 0.5;
    assert.deepEqual(saved.output!.activation, { maxValue: 6 });
  });
}

const FORMATS: readonly Format[] = ["channelsFirst", "channelsLast"];
