/** State dicts against PyTorch's own files: a small network with everything in it, and a published one. */

import assert from "node:assert/strict";
import {
  applyLayer,
  type BatchNormLayer,
  type Device,
  inferLayer,
  initLayer,
  type LayerOptions,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import {
  fromStateDict,
  readSafetensors,
  toStateDict,
  writeSafetensors,
} from "../../lib/checkpoint.ts";
import golden from "../checkpoint/golden/model.json" with { type: "json" };
import network from "../checkpoint/golden/network.json" with { type: "json" };
import { assertClose, type DeviceKit, EPSILON, testsOf } from "../kit.ts";

/** torch.testing.assert_close in float32. */
const PYTORCH = { relative: 1.3e-6, absolute: 1e-5 };

/** Registers the tests of PyTorch's files for a device. */
export function checkpointGoldenSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("a trained network of PyTorch loads, evaluates as there, and is written as it was", async (device) => {
    const bytes = await goldenFile("model.safetensors");
    const { tensors } = readSafetensors(bytes);
    const { model } = fromStateDict(device, goldenNetwork(device), tensors);
    const layers: Readonly<Record<string, BatchNormLayer<A>>> = {
      "stem.norm": model.stem.norm,
      norm: model.norm,
      ...Object.fromEntries(
        model.blocks.flatMap(({ plain, average, untracked }, i) => [
          [`blocks.${i}.plain`, plain],
          [`blocks.${i}.average`, average],
          [`blocks.${i}.untracked`, untracked],
        ]),
      ),
    };
    assert.equal(golden.layers.length, 8);
    for (const { name, shape, x, y } of golden.layers) {
      const output = inferLayer(layers[name], tensor(device, x, shape), { device });
      assertClose(await toArray(device, output), y, PYTORCH, name);
    }
    const dict = await toStateDict(device, model);
    assert.deepEqual(
      Array.from(dict, ([name, { shape, dtype }]) => ({ name, shape: [...shape], dtype })),
      golden.entries.map(({ dtype, ...rest }) => ({
        ...rest,
        dtype: dtype === "int64" ? "I64" : "F32",
      })),
    );
    assert.deepEqual(writeSafetensors(dict), bytes);
  });

  test("a published network's batch norms evaluate as in PyTorch", async (device) => {
    const model = await publishedNetwork(device, ({ momentum }) => momentum);
    for (const { name, shape, x, torch, exact, eps } of network.layers) {
      const input = tensor(device, x, shape);
      const y = await toArray(device, inferLayer(model[name], input, { device }));
      const { weight, bias, runningMean, runningVar } = await stateToHost(
        device,
        model[name].state,
      );
      assert(weight && bias && runningMean && runningVar);
      // As in golden.ts: rounding errors are units in the last place of the terms, and next to 0 of one standard
      // deviation, since there the mean is what resolves.
      const inner = shape[2] * shape[3];
      const units = kit.ulps * EPSILON.float32;
      const absolute = x.map((value, at) => {
        const c = Math.floor(at / inner) % shape[1];
        const xhat = Math.abs(value - runningMean[c]) / Math.sqrt(runningVar[c] + eps);
        return units * (Math.max(1, xhat) * Math.abs(weight[c]) + Math.abs(bias[c]));
      });
      assertClose(y, exact.y, { relative: units, absolute }, `${name} against exact`);
      assertClose(y, torch.y, PYTORCH, `${name} against torch`);
    }
  });

  test("a published network's batch norms go on training as in PyTorch", async (device) => {
    const { trainingMomentum } = network;
    const model = await publishedNetwork(device, () => trainingMomentum);
    for (const { name, shape, x, torch, exact } of network.layers) {
      const before = await stateToHost(device, model[name].state);
      const { layer } = await applyLayer(model[name], tensor(device, x, shape), { device });
      const after = await stateToHost(device, layer.state);
      assert(before.runningMean && after.runningMean && after.runningVar);
      assert.deepEqual([before.numBatchesTracked, after.numBatchesTracked], [0, 1]);
      // As in golden.ts: the terms of the mean are its old value and the batch's largest; those of a variance cannot
      // cancel.
      const inner = shape[2] * shape[3];
      const largest = new Float64Array(shape[1]);
      x.forEach((value, at) => {
        const c = Math.floor(at / inner) % shape[1];
        largest[c] = Math.max(largest[c], Math.abs(value));
      });
      const units = kit.ulps * EPSILON.float32;
      const absolute = Array.from(
        before.runningMean,
        (old, c) =>
          units * ((1 - trainingMomentum) * Math.abs(old) + trainingMomentum * largest[c]),
      );
      const [mean, variance] = [exact.runningMean, exact.runningVar].map((v) =>
        Float32Array.from(v)
      );
      assertClose(after.runningMean, mean, { relative: units, absolute }, `${name}, mean`);
      assertClose(
        after.runningVar,
        variance,
        { relative: units, absolute: 0 },
        `${name}, variance`,
      );
      assertClose(after.runningMean, torch.runningMean, PYTORCH, `${name}, mean against torch`);
      assertClose(after.runningVar, torch.runningVar, PYTORCH, `${name}, variance against torch`);
    }
  });
}

/** The published network's batch norms with what its file holds; momentum is no part of that. */
async function publishedNetwork<A>(
  device: Device<A>,
  momentumOf: (layer: { readonly momentum: number }) => number,
): Promise<Readonly<Record<string, BatchNormLayer<A>>>> {
  const { tensors } = readSafetensors(await goldenFile("network.safetensors"));
  const fresh = Object.fromEntries(
    network.layers.map(({ name, numFeatures, eps, momentum }) => [
      name,
      initLayer(device, "batchNorm2d", numFeatures, { eps, momentum: momentumOf({ momentum }) }),
    ]),
  );
  assert.equal(network.layers.length, 6);
  return fromStateDict(device, fresh, tensors).model;
}

async function goldenFile(name: string): Promise<Uint8Array<ArrayBuffer>> {
  return await Deno.readFile(new URL(`../checkpoint/golden/${name}`, import.meta.url));
}

/** The network of golden/model.py before it has learnt anything. */
function goldenNetwork<A>(device: Device<A>) {
  const zeros = (...shape: number[]) =>
    tensor(device, new Float32Array(shape.reduce((a, b) => a * b)), shape);
  const bias = (length: number) => device.upload(new Float32Array(length));
  const norm = (options: LayerOptions = {}) => initLayer(device, "batchNorm1d", 4, options);
  const block = () => ({
    plain: norm({ affine: false }),
    linear: { weight: zeros(4, 4), bias: bias(4) },
    average: norm({ momentum: null, eps: 1e-3 }),
    untracked: norm({ trackRunningStats: false }),
  });
  return {
    stem: {
      conv: { weight: zeros(4, 2, 3, 3), bias: bias(4) },
      norm: initLayer(device, "batchNorm2d", 4, { momentum: 0.25 }),
    },
    blocks: [block(), block()],
    head: { weight: zeros(3, 4, 1, 1, 1) },
    norm: initLayer(device, "batchNorm3d", 3),
  };
}
