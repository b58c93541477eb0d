/** A weight alone or a bias alone, wherever a state goes: through layers, files, conversion and other frameworks. */

import assert from "node:assert/strict";
import {
  applyLayer,
  backwardLayer,
  convertSyncBatchNorm,
  initLayer,
  initLazyLayer,
  materializeLayer,
  referenceDevice,
  resetRunningStats,
  revertSyncBatchNorm,
  stateFromHost,
  stateToHost,
  tensor,
  toArray,
} from "../mod.ts";
import {
  fromFlax,
  fromKeras,
  fromStateDict,
  readSafetensors,
  toFlax,
  toKeras,
  toStateDict,
  writeSafetensors,
} from "../lib/checkpoint.ts";

const device = referenceDevice();

for (const [name, missing] of [["weight", "bias"], ["bias", "weight"]] as const) {
  const options = { scale: name === "weight", bias: name === "bias" };

  Deno.test(`a ${name} alone survives layers, files, conversion, Keras and Flax`, async () => {
    const layer = initLayer(device, "batchNorm1d", 2, options);
    const learned = device.upload(Float32Array.of(3, -2));
    const model = { norm: { ...layer, state: { ...layer.state, [name]: learned } } };
    const there = convertSyncBatchNorm(resetRunningStats(device, model));
    const lazy = convertSyncBatchNorm({ norm: initLazyLayer("batchNorm1d", options) });
    const file = writeSafetensors(await toStateDict(device, there));
    const { tensors } = readSafetensors(file);
    assert.deepEqual(tensors.has(`norm.${missing}`), false);
    for (
      const target of [there, { norm: materializeLayer(device, lazy.norm, 2) }, lazy] as const
    ) {
      const { model: loaded } = fromStateDict(device, target, tensors);
      const { norm } = revertSyncBatchNorm(loaded) as typeof model;
      const host = await stateToHost(device, norm.state);
      assert.deepEqual([host[name], host[missing]], [Float32Array.of(3, -2), null]);
      const frameworks = [
        fromKeras(toKeras(host, { count: null }).weights, { count: null }),
        fromFlax(toFlax(host, { count: null }).variables, { count: null }),
      ];
      for (const { state } of frameworks) {
        assert.deepEqual([state[name], state[missing]], [host[name], null]);
        assert.equal(stateFromHost(device, state)[missing], null);
      }
    }
  });

  Deno.test(`a ${name} alone has a gradient, and its layer those of both where the other is neutral`, async () => {
    const neutral = device.upload(new Float32Array(2).fill(missing === "weight" ? 1 : 0));
    const x = tensor(device, [1, 5, 2, 7, 4, 4], [3, 2]);
    const dy = tensor(device, [1, 0, -1, 3, 2, 2], [3, 2]);
    const layer = initLayer(device, "batchNorm1d", 2, options);
    const both = { ...layer, state: { ...layer.state, [missing]: neutral } };
    const [one, other] = await Promise.all([layer, both].map(async (layer) => {
      const { output, saved } = await applyLayer(layer, x, { device });
      const back = await backwardLayer(saved, dy, { device });
      const read = (array: Parameters<typeof device.download>[0] | null) =>
        array && device.download(array);
      return {
        y: await toArray(device, output),
        dx: await toArray(device, back.gradInput),
        weight: await read(back.gradWeight),
        bias: await read(back.gradBias),
      };
    }));
    assert.deepEqual(one, { ...other, [missing]: null });
    assert(one[name] !== null);
  });
}
