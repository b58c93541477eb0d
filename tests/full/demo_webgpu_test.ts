/** The demo on this runtime's WebGPU: its own kernels against its loops, and what they cost. */

import assert from "node:assert/strict";
import { compare } from "../../examples/compare.ts";
import { drawBatches, seeded } from "../../examples/batches.ts";
import { HOST_ARITHMETIC } from "../../examples/host_layers.ts";
import { type Arithmetic, unfolded } from "../../examples/layers.ts";
import { firstParameters } from "../../examples/model.ts";
import { judge, LARGEST_DIFFERENCE } from "../../examples/report.ts";
import { inProcessRunner } from "../../examples/runners.ts";
import type { Run } from "../../examples/train.ts";
import { type WebGpuLayers, webgpuLayers } from "../../examples/webgpu_layers.ts";
import { requestWebGpuDevice } from "../../kernels/webgpu_device.ts";
import { digits, planWith } from "../demo_kit.ts";
import { uniforms } from "../random.ts";
import { fullTests } from "../tier.ts";
import { testsWebgpu } from "../webgpu_kit.ts";

const root = new URL("../../", import.meta.url);
const ignore = !await testsWebgpu();
const register = fullTests("demo on webgpu");
const test = (name: string, body: () => Promise<void>): void => register(name, body, { ignore });

/** A layer, vectors of numbers in (-1, 1) or labels, and how many terms the longest of its sums has. */
interface Case {
  readonly name: string;
  readonly vectors: readonly Float32Array[];
  readonly terms: number;
  readonly run: <V>(layers: Arithmetic<V>, vectors: readonly V[]) => readonly V[];
}

/** Extents that no workgroup divides, and none at all. */
const EXTENTS = [
  { images: 3, side: 5, channels: 3, stride: 2, inputs: 37, outputs: 11 },
  { images: 7, side: 8, channels: 1, stride: 1, inputs: 1, outputs: 13 },
  { images: 1, side: 1, channels: 5, stride: 2, inputs: 65, outputs: 1 },
  { images: 131, side: 4, channels: 2, stride: 3, inputs: 9, outputs: 67 },
  { images: 0, side: 4, channels: 8, stride: 2, inputs: 9, outputs: 8 },
];

function casesOf(extents: (typeof EXTENTS)[number], random: () => number): readonly Case[] {
  // Some are 0, where ReLUs turn.
  const draw = (length: number) =>
    Float32Array.from({ length }, () => random() < 0.2 ? 0 : 2 * random() - 1);
  const { images, side, channels, inputs, outputs } = extents;
  const shape = { rows: images, inputs, outputs };
  const [many, few, weights] = [images * inputs, images * outputs, outputs * inputs];
  const pixels = images * side ** 2 * channels;
  const numbers = Array.from({ length: images }, (_, i) => (5 * i + 2) % images);
  const labels = Float32Array.from(numbers, (number) => number % outputs);
  return [
    {
      ...{ name: "linear", vectors: [draw(many), draw(weights)], terms: inputs },
      run: (layers, [x, weight]) => [layers.linear(x, weight, shape)],
    },
    {
      ...{ name: "linearGradWeight", vectors: [draw(many), draw(few)], terms: images },
      run: (layers, [x, dy]) => [layers.linearGradWeight(x, dy, shape)],
    },
    {
      ...{ name: "linearGradInput", vectors: [draw(few), draw(weights)], terms: outputs },
      run: (layers, [dy, weight]) => [layers.linearGradInput(dy, weight, shape)],
    },
    {
      ...{ name: "columnSums", vectors: [draw(many)], terms: images },
      run: (layers, [matrix]) => [layers.columnSums(matrix, images, inputs)],
    },
    {
      ...{ name: "pickRows", vectors: [draw(many)], terms: 0 },
      run: (layers, [matrix]) => [layers.pickRows(matrix, numbers, inputs)],
    },
    {
      ...{ name: "unfold", vectors: [draw(pixels)], terms: 0 },
      run: (layers, [x]) => [layers.unfold(x, extents)],
    },
    {
      ...{ name: "fold", vectors: [draw(unfolded(extents))], terms: 9 },
      run: (layers, [rows]) => [layers.fold(rows, extents)],
    },
    {
      ...{ name: "addBias", vectors: [draw(many), draw(inputs)], terms: 1 },
      run: (layers, [x, bias]) => [layers.addBias(x, bias, inputs)],
    },
    {
      ...{ name: "relu", vectors: [draw(many)], terms: 0 },
      run: (layers, [x]) => [layers.relu(x)],
    },
    {
      ...{ name: "gate", vectors: [draw(many), draw(many)], terms: 0 },
      run: (layers, [dy, output]) => [layers.gate(dy, output)],
    },
    {
      // exp and log of WGSL may be off by more than a rounding, by 3 + 2 |x| units for exp.
      ...{ name: "crossEntropy", vectors: [draw(few), labels], terms: 8 + outputs },
      run: (layers, [logits, labels]) => {
        const { scores, gradLogits } = layers.crossEntropy(logits, labels, images, outputs);
        return [scores, gradLogits];
      },
    },
    {
      ...{ name: "descend", vectors: [draw(weights), draw(weights)], terms: 2 },
      run: (layers, [parameters, velocity]) => {
        const gradient = Float64Array.from({ length: weights }, (_, i) => Math.sin(i));
        const moved = layers.descend({ parameters, velocity }, gradient, {
          rate: 0.1,
          momentum: 0.9,
        });
        return [moved.parameters, moved.velocity];
      },
    },
  ];
}

for (const [i, extents] of EXTENTS.entries()) {
  const { images, side, inputs, outputs } = extents;
  const size = `${images} images, ${side} x ${side}, ${inputs} to ${outputs}`;
  test(`the demo's kernels compute what its loops do: ${size}`, async () => {
    await using device = await requestWebGpuDevice();
    using layers = webgpuLayers(device);
    const random = uniforms(i);
    for (const { name, vectors, terms, run } of casesOf(extents, random)) {
      const expected = run(HOST_ARITHMETIC, vectors);
      const made = run(layers, vectors.map((vector) => unaligned(layers, vector)));
      const actual = await layers.read(...made);
      assert.deepEqual(actual.map(({ length }) => length), expected.map(({ length }) => length));
      // Each addition rounds by half a unit of 2^-23 of a sum that is at most as large as it has terms.
      const tolerance = terms ** 2 * 2 ** -24;
      for (const [which, vector] of expected.entries()) {
        vector.forEach((value, at) => {
          const difference = Math.abs(actual[which][at] - value);
          assert(difference <= tolerance, `${name}[${at}]: ${actual[which][at]} for ${value}`);
        });
      }
    }
  });
}

/** A vector that begins where WebGPU could not bind it; an empty one is bound as it is. */
function unaligned(layers: WebGpuLayers, values: Float32Array) {
  if (values.length === 0) return layers.upload(values);
  const longer = Float32Array.from([7, 7, 7, ...values, 7]);
  return layers.slice(layers.upload(longer), 3, 3 + values.length);
}

test("the demo's replicas with syncbn equal one process within 10 steps", async () => {
  await using device = await requestWebGpuDevice();
  using layers = webgpuLayers(device);
  const run = inProcessRunner(layers, digits);
  const options = { replicas: 4, batch: 2, epochs: 1, stopAfter: 10, seed: 3 };
  const comparison = await compare({ one: run, replicas: run }, planWith([10], options));
  const largest = (name: "sync" | "local") =>
    Math.max(...comparison.results[name].distances.map((distance) => distance.largest));
  assert.equal(comparison.steps, 10);
  assert(largest("sync") <= LARGEST_DIFFERENCE, `${largest("sync")}`);
  assert(largest("local") > 0.01);
  assert(judge(comparison).kept);
});

test("the demo reads back what its collectives need and nothing else, and keeps its memory", async () => {
  await using device = await requestWebGpuDevice();
  using layers = webgpuLayers(device);
  const count = async (replicas: number, norm: "sync" | "none", steps: number) => {
    using counted = countCalls();
    await learn(layers, { replicas, norm, images: Math.max(4, 2 * replicas), steps });
    return { ...counted };
  };
  // Three batch norms read back once per direction, then the gradients do.
  const perStep = 3 * 2 + 1;
  const [warm, longer] = [await count(3, "sync", 2), await count(3, "sync", 5)];
  assert.equal(warm.readbacks, 2 * 3 * perStep);
  assert.equal(longer.readbacks, 5 * 3 * perStep);
  assert.equal(longer.ownBuffers, 0, "buffers of the first run are used again");
  // Without other replicas' statistics, the gradients alone are read.
  assert.equal((await count(1, "sync", 3)).readbacks, 3);
  assert.equal((await count(2, "none", 3)).readbacks, 2 * 3);
});

test("a replica of the demo without images changes nothing", async () => {
  await using device = await requestWebGpuDevice();
  using layers = webgpuLayers(device);
  const learnt = async (replicas: number) => {
    const { snapshots } = await learn(layers, {
      replicas,
      norm: "sync",
      images: 5,
      steps: 3,
      snapshot: 3,
    });
    return snapshots.get(3) ?? new Float32Array();
  };
  // The images are 5; 2 and 3; 2 and 3 and none.
  const [one, two, three] = [await learnt(1), await learnt(2), await learnt(3)];
  assert(one.length > 0);
  assert.deepEqual(three, two);
  assert(three.every((value, i) => Math.abs(value - one[i]) <= LARGEST_DIFFERENCE));
});

/** Some steps of one run; a single replica has all images, others two each, the last one what is left. */
async function learn(
  layers: WebGpuLayers,
  { replicas, norm, images, steps, snapshot }: {
    readonly replicas: number;
    readonly norm: "sync" | "none";
    readonly images: number;
    readonly steps: number;
    readonly snapshot?: number;
  },
): Promise<Run> {
  const random = seeded(1);
  const parameters = firstParameters(random.unit);
  const batches = drawBatches(digits.training.count, images, 1, random).slice(0, steps);
  return await inProcessRunner(layers, digits)({
    ...{ batches, planned: steps, parameters, replicas, norm },
    perReplica: replicas === 1 ? images : 2,
    exams: new Set(),
    snapshots: new Set(snapshot === undefined ? [] : [snapshot]),
  });
}

/** Counts readbacks and the demo's own new buffers until it is disposed. */
function countCalls() {
  const counted = { readbacks: 0, ownBuffers: 0 };
  const [{ mapAsync }, { createBuffer }] = [GPUBuffer.prototype, GPUDevice.prototype];
  GPUBuffer.prototype.mapAsync = function (...args) {
    counted.readbacks++;
    return mapAsync.apply(this, args);
  };
  GPUDevice.prototype.createBuffer = function (descriptor) {
    if (descriptor.label === "demo") counted.ownBuffers++;
    return createBuffer.call(this, descriptor);
  };
  return Object.assign(counted, {
    [Symbol.dispose]: () => {
      GPUBuffer.prototype.mapAsync = mapAsync;
      GPUDevice.prototype.createBuffer = createBuffer;
    },
  });
}

test("the example with kernels of its own runs without a permission and learns", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "examples/own_kernels.ts"],
    cwd: root,
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder();
  assert.equal(code, 0, text.decode(stderr));
  const [, first, second] = text.decode(stdout).match(/\[ (\S+), (\S+) \]/) ?? [];
  assert(Math.abs(Number(second) / Number(first) + 1) < 0.2, text.decode(stdout));
});
