/** Whole models as state dicts: PyTorch's names, there and back bit for bit, everything or nothing. */

import assert from "node:assert/strict";
import {
  applyLayer,
  type BatchNormLayer,
  convertSyncBatchNorm,
  type Device,
  freeze,
  initLayer,
  release,
  stateFromHost,
  stateToHost,
  type Tensor,
  tensor,
  toArray,
} from "../../mod.ts";
import {
  fromStateDict,
  readSafetensors,
  toStateDict,
  writeSafetensors,
} from "../../lib/checkpoint.ts";
import { f32, i64, Linear, NAMES, networkOf, plain } from "../checkpoint/state_dicts.ts";
import { bitsOf, ODD_BITS, ofBits, range } from "../data_parallel.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census, failing, record } from "../recording.ts";
import { badModelSuite } from "./checkpoint_models.ts";
import { checkpointGoldenSuite } from "./checkpoint_golden.ts";
import { lazySuite } from "./checkpoint_lazy.ts";
import { misfitSuite } from "./checkpoint_misfits.ts";
import { sharingSuite } from "./checkpoint_nodes.ts";
import { numberSuite } from "./checkpoint_numbers.ts";
import { treeSuite } from "./checkpoint_trees.ts";

const LAUNCHES = ["upload", "download", "downloadAll", "batch", "end"];

/** Registers the tests of state dicts for a device. */
export function checkpointSuite<A>(kit: DeviceKit<A>): void {
  savingTests(kit);
  loadingTests(kit);
  numberSuite(kit);
  misfitSuite(kit);
  badModelSuite(kit);
  sharingSuite(kit);
  lazySuite(kit);
  treeSuite(kit);
  checkpointGoldenSuite(kit);
}

function savingTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("toStateDict() has PyTorch's names in the tree's order", async (device) => {
    const model = networkOf(device);
    const dict = await toStateDict(device, model);
    assert.deepEqual([...dict.keys()], NAMES);
    const { weight, runningVar } = await stateToHost(device, model.stem.norm.state);
    assert.deepEqual(dict.get("stem.norm.weight"), { dtype: "F32", shape: [2], data: weight });
    assert.deepEqual(dict.get("stem.norm.running_var")?.data, runningVar);
    assert.deepEqual(dict.get("head.num_batches_tracked"), i64(1n));
    assert.deepEqual(dict.get("blocks.0.bias")?.shape, [3]);
    assert.deepEqual(dict.get("stem.kernel")?.shape, [2, 3, 2, 2]);
    for (const array of dict.values()) {
      assert(Object.isFrozen(array) && Object.isFrozen(array.shape));
      assert.equal(array.data.buffer.byteLength, array.data.byteLength, "memory of its own");
    }
  });

  test("toStateDict() of a single node and of none", async (device) => {
    const vectors = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];
    const layer = initLayer(device, "batchNorm1d", 1);
    for (const node of [layer, layer.state]) {
      assert.deepEqual([...(await toStateDict(device, node)).keys()], vectors);
    }
    assert.deepEqual([...(await toStateDict(device, layer.state.weight)).keys()], [""]);
    for (const nothing of [{}, [], null, undefined, 1, "x", new Linear(), { list: [{}] }]) {
      const none = /must be or hold a layer, a state, a tensor or an array/;
      await assert.rejects(toStateDict(device, nothing), none);
      assert.throws(() => fromStateDict(device, nothing, {}), none);
      const options = { allowNone: true };
      assert.equal((await toStateDict(device, nothing, options)).size, 0);
      assert.deepEqual(fromStateDict(device, nothing, {}, options).model, nothing);
    }
  });

  test("toStateDict() reads everything back at once, and at the call", async (device) => {
    const model = networkOf(device);
    const before = plain(await toStateDict(device, model));
    const watched = record(device);
    const reading = toStateDict(watched.device, model);
    release(device, model);
    assert.deepEqual(plain(await reading), before);
    const counted = NAMES.filter((name) => !name.endsWith("tracked")).map(() => "download");
    assert.deepEqual(
      watched.calls.filter((call) => LAUNCHES.includes(call)),
      device.downloadAll ? ["downloadAll"] : ["batch", ...counted, "end"],
    );
  });

  test("toStateDict() has the shapes of the call, whatever becomes of the caller's records", async (device) => {
    for (const format of ["channelsFirst", "channelsLast"] as const) {
      const shape = [1, 2, 3];
      const x: Tensor<A> = { ...tensor(device, range(6), shape, { format }), shape };
      const wanted = plain(await toStateDict(device, { x }));
      const reading = toStateDict(device, { x });
      shape.splice(0, 3, 6, 1);
      assert.deepEqual(plain(await reading), wanted);
    }
  });
}

function loadingTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("fromStateDict() puts back bit for bit what toStateDict() has given", async (device) => {
    const odd = ofBits(...ODD_BITS);
    const make = (values: Float32Array, numBatchesTracked: number) => ({
      state: stateFromHost<A>(device, {
        ...{ numFeatures: 6, eps: 1e-3, momentum: null, numBatchesTracked },
        ...{ weight: values, bias: values.toReversed(), runningMean: values, runningVar: values },
      }),
      array: device.upload(values),
      empty: tensor(device, [], [0, 3, 2]),
      first: tensor(device, values, [1, 2, 3]),
      last: tensor(device, values, [1, 2, 3], { format: "channelsLast" }),
    });
    const saved = await toStateDict(device, make(odd, 2 ** 53 - 1));
    const blank = make(new Float32Array(6), 0);
    for (
      const dict of [
        saved,
        Object.fromEntries(saved),
        Object.assign(Object.create(null), Object.fromEntries(saved)),
        readSafetensors(writeSafetensors(saved)).tensors,
      ]
    ) {
      const { model, missing, unexpected } = fromStateDict(device, blank, dict);
      assert.deepEqual(plain(await toStateDict(device, model)), plain(saved));
      assert.deepEqual(bitsOf(await toArray(device, model.last)), ODD_BITS);
      assert.equal(model.state.numBatchesTracked, 2 ** 53 - 1);
      assert.deepEqual([missing, unexpected], [[], []]);
      release(device, model);
    }
    const { bias, numBatchesTracked } = await stateToHost(device, blank.state);
    assert.deepEqual(
      [bias, numBatchesTracked],
      [new Float32Array(6), 0],
      "the old one is as it was",
    );
  });

  test("fromStateDict() keeps everything that is no entry", async (device) => {
    const shape = [1, 2];
    const model = {
      ...networkOf(device),
      named: { ...tensor(device, [1, 2], shape), shape, name: "kernel" },
      frozen: { ...freeze(initLayer(device, "batchNorm1d", 1)), own: ["x"] },
    };
    const other = {
      ...networkOf(device, 2),
      named: tensor(device, [3, 4], shape),
      frozen: initLayer(device, "batchNorm1d", 1),
    };
    const dict = await toStateDict(device, other);
    const loaded = fromStateDict(device, model, dict);
    assert.deepEqual(plain(await toStateDict(device, loaded.model)), plain(dict));
    assert.equal(loaded.model.others, model.others);
    assert.equal(loaded.model.frozen.own, model.frozen.own);
    assert.equal(loaded.model.frozen.frozen, "statistics");
    assert.equal(loaded.model.blocks[0].rate, 0.5);
    const { momentum, eps } = loaded.model.stem.norm.state;
    assert.deepEqual([momentum, eps], [0.25, 1e-5], "settings are the model's own");
    shape.reverse();
    assert.deepEqual([loaded.model.named.shape, loaded.model.named.name], [[1, 2], "kernel"]);
    for (
      const made of [
        loaded,
        loaded.missing,
        loaded.unexpected,
        loaded.model,
        loaded.model.named,
        loaded.model.named.shape,
        loaded.model.stem.norm.state,
        loaded.model.stem.kernel,
      ]
    ) {
      assert(Object.isFrozen(made));
    }
  });

  test("training goes on after loading exactly as it would have", async (device) => {
    const steps = range(4).map((i) => tensor(device, normalArray(24, i, 1, 2), [4, 3, 2]));
    const run = async (layer: BatchNormLayer<A>, inputs: readonly Tensor<A>[]) => {
      for (const input of inputs) ({ layer } = await applyLayer(layer, input, { device }));
      return layer;
    };
    for (const momentum of [0.1, null]) {
      const fresh = () => initLayer(device, "batchNorm1d", 3, { momentum });
      const half = await run(fresh(), steps.slice(0, 2));
      const bytes = writeSafetensors(await toStateDict(device, half));
      const again = fromStateDict(device, fresh(), readSafetensors(bytes).tensors).model;
      const [on, after] = [await run(half, steps.slice(2)), await run(again, steps.slice(2))];
      assert.deepEqual(
        plain(await toStateDict(device, after)),
        plain(await toStateDict(device, on)),
      );
      assert.equal(after.state.numBatchesTracked, 4);
    }
  });

  test("convertSyncBatchNorm() changes no state dict", async (device) => {
    const model = networkOf(device);
    const dict = await toStateDict(device, model);
    const converted = convertSyncBatchNorm(model);
    assert.equal(converted.stem.norm.processGroup, "world");
    assert.deepEqual(await toStateDict(device, converted), dict);
    const loaded = fromStateDict(device, convertSyncBatchNorm(networkOf(device, 2)), dict).model;
    assert.equal(loaded.stem.norm.processGroup, "world");
    assert.deepEqual(plain(await toStateDict(device, loaded)), plain(dict));
  });

  test("what is made is made in one submit, and whatever fails leaves nothing behind", async (device) => {
    const model = networkOf(device);
    const dict = await toStateDict(device, networkOf(device, 2));
    const watched = record(device);
    fromStateDict(watched.device, model, dict);
    const uploads = NAMES.filter((name) => !name.endsWith("tracked")).map(() => "upload");
    assert.deepEqual(watched.calls.filter((call) => LAUNCHES.includes(call)), [
      "batch",
      ...uploads,
      "end",
    ]);

    const before = plain(await toStateDict(device, model));
    for (const launch of [0, 2, uploads.length - 1]) {
      const { device: counted, alive } = census(device);
      const broken = failing(counted, launch);
      assert.throws(() => fromStateDict(broken.device, model, dict), /launch \d+ failed/);
      assert(broken.reached());
      assert.equal(alive(), 0);
    }
    const late = census(device);
    const afterwards: Device<A> = {
      ...late.device,
      batch: (body) => {
        body(late.device);
        throw new Error("submit failed");
      },
    };
    assert.throws(() => fromStateDict(afterwards, model, dict), /submit failed/);
    assert.equal(late.alive(), 0);
    const own = census(device);
    const bad = {
      first: device.upload(Float32Array.of(1)),
      kernel: {
        ...tensor(device, [1], [1, 1]),
        get spread(): number {
          throw new Error("rebuild failed");
        },
      },
    };
    const both = { first: f32(2), kernel: { ...f32(2), shape: [1, 1] } };
    assert.throws(() => fromStateDict(own.device, bad, both), /rebuild failed/);
    assert.equal(own.alive(), 0);
    assert.deepEqual(plain(await toStateDict(device, model)), before);
  });
}
