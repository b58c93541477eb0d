/** Models that have no state dict, and parts of models that are none of theirs. */

import assert from "node:assert/strict";
import { initBatchNorm, initLayer, initLazyLayer, referenceDevice, tensor } from "../../mod.ts";
import { fromStateDict, toStateDict } from "../../lib/checkpoint.ts";
import { type DeviceKit, testsOf } from "../kit.ts";

/** Registers the tests of models without a state dict for a device. */
export function badModelSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("a model that has no state dict is refused by path, both ways", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 2);
    const vector = () => device.upload(Float32Array.of(1, 2));
    const freed = vector();
    device.free(freed);
    const { weight: foreign } = initBatchNorm(referenceDevice(), 2);
    const cycle: Record<string, unknown> = { list: [] };
    (cycle.list as unknown[]).push({ back: cycle, weight: vector() });
    const kernel = tensor(device, [1, 2], [1, 2]);
    const state = (fields: object) => ({ ...layer.state, ...fields });
    const cases: [unknown, ErrorConstructor, RegExp][] = [
      [
        cycle,
        TypeError,
        /as a model must be a tree: current list\.0\.back is the model itself again/,
      ],
      [{ a: { kind: "batchNorm1d" } }, TypeError, /at a as a layer must be \{ kind, processGroup/],
      [{ a: [{ ...layer, processGroup: 3 }] }, TypeError, /at a\.0 as processGroup must be/],
      [{ a: { ...layer, state: state({ eps: -1 }) } }, RangeError, /at a as eps must be/],
      [
        { a: { ...layer, state: state({ weight: null, bias: freed }) } },
        TypeError,
        /at a with bias: .*freed/,
      ],
      [
        { a: state({ runningVar: null }) },
        TypeError,
        /at a as runningMean and runningVar must both/,
      ],
      [
        { a: state({ bias: device.upload(Float32Array.of(1)) }) },
        TypeError,
        /at a as the length of bias/,
      ],
      [{ a: state({ bias: Float32Array.of(1, 2) }) }, TypeError, /at a with bias/],
      [{ a: state({ numBatchesTracked: -1 }) }, RangeError, /at a as numBatchesTracked must be/],
      [{ a: [0, freed] }, TypeError, /at a\.1 with the array: .*freed/],
      [{ a: foreign }, TypeError, /at a with the array: .*another device/],
      [{ a: { ...kernel, data: freed } }, TypeError, /at a with the tensor: .*freed/],
      [{ a: { ...kernel, data: foreign } }, TypeError, /at a with the tensor: .*another device/],
      [{ a: { ...kernel, shape: [1, 3] } }, TypeError, /at a as the tensor's shape \(1, 3\) needs/],
      [{ a: { ...kernel, format: "NHWC" } }, TypeError, /at a as the tensor's format must be/],
      [
        { "a.b": vector(), a: { b: vector() } },
        TypeError,
        /name "a\.b" is that of two nodes, so a key is empty or has a dot in it, or rename/,
      ],
      [
        { a: layer, "a.bias": vector() },
        TypeError,
        /name "a\.bias" is that of two nodes, so/,
      ],
      [
        { "": layer, weight: vector() },
        TypeError,
        /name "weight" is that of two nodes, so/,
      ],
      [{ "": { w: vector() }, w: vector() }, TypeError, /name "w" is that of two nodes, so a key/],
      [
        { a: [{ kind: "BatchNorm1d", processGroup: null, state: layer.state }] },
        TypeError,
        /at a\.0 as kind must be "batchNorm1d", .*: current value is "BatchNorm1d"$/,
      ],
      [freed, TypeError, /at the model itself with the array: .*freed/],
    ];
    for (const [model, kind, message] of cases) {
      const checked = (action: string) => (error: Error) => {
        assert.equal(error.constructor, kind, error.message);
        assert(error.message.startsWith(`Cannot ${action} `), error.message);
        assert.match(error.message, message);
        return true;
      };
      await assert.rejects(toStateDict(device, model), checked("save the model"));
      assert.throws(() => fromStateDict(device, model, {}), checked("load the state dict"));
    }
    const lazy = {
      norms: [initLazyLayer("batchNorm1d", { affine: false, trackRunningStats: false })],
    };
    await assert.rejects(
      toStateDict(device, lazy),
      /^TypeError: Cannot save the model at norms\.0 as a lazy batchNorm1d must have seen its channels/,
    );
    // The same node twice by the same name is one entry.
    const twice = vector();
    assert.deepEqual([...(await toStateDict(device, { "a.b": twice, a: { b: twice } })).keys()], [
      "a.b",
    ]);
  });

  test("settings that look like nodes, and are none, stay as they are", async (device) => {
    const settings = {
      cpu: { device: "cpu" },
      threads: Object.freeze({ device: "cpu", threads: 2 }),
      images: { data: "imagenet", shape: [3, 224], dtype: "uint8", format: "png" },
      numbers: { data: 1, shape: [1], dtype: "float32" },
      none: { data: null, shape: [1], dtype: "float32", format: "channelsFirst" },
      relu: { kind: "relu", state: 1 },
      named: { kind: "BatchNorm1d", numFeatures: 3 },
    };
    const norm = initLayer(device, "batchNorm1d", 1, { trackRunningStats: false });
    const model = { settings, norm };
    const dict = await toStateDict(device, model);
    assert.deepEqual([...dict.keys()], ["norm.weight", "norm.bias"]);
    const loaded = fromStateDict(device, model, dict).model;
    assert.equal(loaded.settings, settings);
    assert.notEqual(loaded.norm, norm);
  });
}
