/** Layers that normalize by ghost batches, or renormalize: their settings, and what they do by them. */

import assert from "node:assert/strict";
import {
  applyLayer,
  applyLayerParts,
  backwardLayer,
  backwardLayerParts,
  batchNormBackwardGhost,
  batchNormForwardGhost,
  batchRenormBackward,
  batchRenormForward,
  convertSyncBatchNorm,
  freeze,
  inferLayer,
  initBatchNorm,
  initLayer,
  initLazyLayer,
  type LayerOptions,
  materializeLayer,
  type ReferenceArray,
  referenceDevice,
  resetRunningStats,
  revertSyncBatchNorm,
  runRanks,
  stateToHost,
  type Tensor,
  tensor,
  toArray,
  unfreeze,
} from "../mod.ts";
import {
  fromStateDict,
  readSafetensors,
  toStateDict,
  writeSafetensors,
} from "../lib/checkpoint.ts";
import { assertClose, EPSILON, throwsLike } from "./kit.ts";
import { normalArray } from "./random.ts";
import { census } from "./recording.ts";

const device = referenceDevice();
const renorm = {
  rmax: { rule: "ramp", from: 1, to: 3, begin: 0, end: 4 },
  dmax: 0.25,
} as const;
const WAYS: Readonly<Record<string, LayerOptions>> = { ghost: { ghost: 2 }, renorm: { renorm } };
const put = (values: Float32Array) => tensor(device, values, [values.length / 4, 2, 2]);
const [x, dy] = [1, 2].map((seed) => normalArray(24, seed, 2, 3));

for (const [name, options] of Object.entries(WAYS)) {
  Deno.test(`a layer's ${name} survives conversion, freezing, lazy beginnings, clones and files`, async () => {
    const model = { norm: initLayer(device, "batchNorm1d", 2, options) };
    const there = unfreeze(freeze(resetRunningStats(device, convertSyncBatchNorm(model))));
    const file = writeSafetensors(await toStateDict(device, there));
    const { model: loaded } = fromStateDict(device, there, readSafetensors(file).tensors);
    const lazy = JSON.parse(JSON.stringify(initLazyLayer("batchNorm1d", options)));
    const filled = fromStateDict(device, { norm: lazy }, readSafetensors(file).tensors).model;
    const made = materializeLayer(device, structuredClone(lazy), 2);
    const { layer: run } = await applyLayer(made as typeof model.norm, put(x), { device });
    const all = [model, there, loaded, filled, { norm: made }, { norm: run }];
    for (const { norm } of [...all, revertSyncBatchNorm(loaded)]) {
      assert.deepEqual({ ghost: norm.ghost, renorm: norm.renorm }, {
        ...{ ghost: undefined, renorm: undefined },
        ...options,
      });
    }
  });

  Deno.test(`a layer with ${name} does what the function does, alone and over a group`, async () => {
    const local = initLayer(device, "batchNorm1d", 2, { ...options, activation: "relu" });
    const { state } = local;
    const activation = "relu" as const;
    const byFunction = async (input: Tensor<ReferenceArray>, dy: Tensor<ReferenceArray>) => {
      if (options.ghost !== undefined) {
        const how = { ghost: options.ghost, activation };
        const { saved, ...rest } = batchNormForwardGhost(state, input, { device }, how);
        return { ...rest, ...batchNormBackwardGhost(saved, dy, { device }) };
      }
      const how = { ...renorm, activation };
      const { saved, ...rest } = await batchRenormForward(state, input, { device }, how);
      return { ...rest, ...batchRenormBackward(saved, dy, { device }) };
    };
    const wanted = await byFunction(put(x), put(dy));
    const synced = convertSyncBatchNorm(local);
    for (const cuts of [[0, 24], [0, 8, 24], [0, 16, 16, 24]]) {
      const layer = cuts.length === 2 ? local : synced;
      const parts = await runRanks(cuts.length - 1, async (group) => {
        const { device: counted, alive } = census(device);
        const effects = { device: counted, groups: { world: group } };
        const cut = (values: Float32Array) =>
          put(values.slice(cuts[group.rank], cuts[group.rank + 1]));
        const forward = await applyLayer(layer, cut(x), effects);
        const before = alive();
        const back = await backwardLayer(forward.saved, cut(dy), effects);
        assert.equal(alive() - before, 3, "gradients alone stay");
        return { forward, back };
      });
      const close = { absolute: 8 * EPSILON.float32, relative: 8 * EPSILON.float32 };
      const joined = async (list: readonly Tensor<ReferenceArray>[]) =>
        (await Promise.all(list.map((of) => toArray(device, of)))).flatMap((values) => [...values]);
      const y = await joined(parts.map(({ forward }) => forward.output));
      assertClose(y, await toArray(device, wanted.output), close, "y");
      const dx = await joined(parts.map(({ back }) => back.gradInput));
      assertClose(dx, await toArray(device, wanted.gradInput), close, "dx");
      const weights = await Promise.all(parts.map(({ back }) => device.download(back.gradWeight!)));
      const sum = weights.reduce((a, b) => a.map((value, i) => value + b[i]));
      assertClose(sum, await device.download(wanted.gradWeight!), close, "dweight");
      const expected = await stateToHost(device, wanted.state);
      for (const { forward } of parts) {
        const is = await stateToHost(device, forward.layer.state);
        assertClose(is.runningVar!, expected.runningVar!, close, "running variance");
        assert.equal(is.numBatchesTracked, 1);
      }
    }
    const evaluated = inferLayer({ ...local, state: wanted.state }, put(x), { device });
    const plain = initLayer(device, "batchNorm1d", 2, { activation });
    const other = inferLayer({ ...plain, state: wanted.state }, put(x), { device });
    assert.deepEqual(await toArray(device, evaluated), await toArray(device, other));
  });
}

Deno.test("a layer over parts is the layer over the whole batch, alone, lazy, and over a group", async () => {
  const local = initLayer(device, "batchNorm1d", 2, { activation: "relu" });
  const whole = await applyLayer(local, put(x), { device });
  const back = await backwardLayer(whole.saved, put(dy), { device });
  const lazy = initLazyLayer("batchNorm1d", { activation: "relu" });
  const cases = [
    [local, [[0, 8, 24]]],
    [lazy, [[0, 4, 4, 24]]],
    [convertSyncBatchNorm(local), [[0, 4, 8], [8, 24]]],
    [convertSyncBatchNorm(lazy), [[0, 4, 8], [8, 8, 8], [8, 12, 24]]],
  ] as const;
  for (const [layer, cuts] of cases) {
    const results = await runRanks(cuts.length, async (group) => {
      const bounds = cuts[group.rank];
      const cut = (values: Float32Array) =>
        bounds.slice(1).map((to, i) => put(values.slice(bounds[i], to)));
      const effects = { device, groups: { world: group } };
      const forward = await applyLayerParts<ReferenceArray, typeof layer>(layer, cut(x), effects);
      const grads = await backwardLayerParts(forward.saved, cut(dy), effects);
      const read = async (list: readonly Tensor<ReferenceArray>[]) =>
        (await Promise.all(list.map((of) => toArray(device, of)))).flatMap((v) => [...v]);
      return {
        y: await read(forward.outputs),
        dx: await read(grads.gradInputs),
        next: await stateToHost(device, forward.layer.state),
      };
    });
    const close = { absolute: 8 * EPSILON.float32, relative: 8 * EPSILON.float32 };
    const all = (name: "y" | "dx") => results.flatMap((result) => result[name]);
    assertClose(all("y"), await toArray(device, whole.output), close, "y");
    assertClose(all("dx"), await toArray(device, back.gradInput), close, "dx");
    const { runningVar } = await stateToHost(device, whole.layer.state);
    for (const { next } of results) {
      assertClose(next.runningVar!, runningVar!, close, "running variance");
      assert.equal(next.numBatchesTracked, 1);
    }
  }
  const refused = (layer: typeof local, inputs: unknown, text: RegExp) =>
    assert.rejects(applyLayerParts(layer, inputs as Tensor<ReferenceArray>[], { device }), text);
  await refused(freeze(local), [put(x)], /by the whole batch; apply any other.*has frozen/);
  await refused({ ...local, ghost: 2 }, [put(x)], /has ghost/);
  await refused(local, put(x), /inputs must be a list/);
  await refused(local, [tensor(device, [1, 2], [1, 2, 1, 1])], /2D or 3D input/);
  await assert.rejects(
    backwardLayerParts(whole.saved as never, [put(dy)], { device }),
    /applyLayerParts/,
  );
});

Deno.test("settings of a layer that cannot be are refused, and what a layer saved needs its group's name", async () => {
  const make = (options: LayerOptions) => () => initLayer(device, "batchNorm1d", 2, options);
  throwsLike(make({ ghost: 0 }), RangeError, /ghost, the samples of a group, must be an integer/);
  throwsLike(make({ renorm: { rmax: 0, dmax: 0 } }), RangeError, /rmax must be finite and >= 1/);
  throwsLike(make({ ghost: 2, renorm }), TypeError, /a layer may have ghost or renorm/);
  const untracked = { kind: "batchNorm1d", processGroup: null, renorm } as const;
  const state = initBatchNorm(device, 2, { trackRunningStats: false });
  await assert.rejects(
    applyLayer({ ...untracked, state }, put(x), { device }),
    /a renormalizing layer must have running statistics/,
  );
  await runRanks(2, async (group) => {
    const layer = initLayer(device, "batchNorm1d", 2, { renorm, processGroup: "world" });
    const effects = { device, groups: { world: group } };
    const { saved } = await applyLayer(layer, put(x), effects);
    assert(saved.kind === "renorm" && "processGroup" in saved);
    const { processGroup: _, ...nameless } = saved;
    await assert.rejects(
      backwardLayer(nameless as unknown as typeof saved, put(dy), effects),
      /saved must be that of applyLayer/,
    );
  });
});
