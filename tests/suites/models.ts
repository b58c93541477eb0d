/** What is done to all layers of a model at once: freezing, any change, statistics that begin anew, folding. */

import assert from "node:assert/strict";
import {
  batchNormForward,
  type BatchNormLayer,
  type Device,
  foldBatchNorm,
  foldModel,
  freeze,
  inferLayer,
  initBatchNorm,
  initLayer,
  initLazyLayer,
  type LinearLayer,
  mapLayers,
  release,
  resetRunningStats,
  stateToHost,
  type Tensor,
  tensor,
  toArray,
  unfreeze,
} from "../../mod.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { normalArray } from "../random.ts";
import { census, failing, record } from "../recording.ts";

/** Registers the tests of whole models for a device. */
export function modelSuite<A>(kit: DeviceKit<A>): void {
  freezingTests(kit);
  mappingTests(kit);
  resettingTests(kit);
  foldingTests(kit);
}

function freezingTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("freeze() takes the layers of a model that are meant, unfreeze() lets them go again", (device) => {
    const shared = trained(device, 3);
    const model = { stem: shared, blocks: [trained(device, 2), { norm: shared }], rate: 0.1 };
    const all = freeze(model);
    assert.deepEqual(
      [all.stem.frozen, (all.blocks[0] as BatchNormLayer<A>).frozen],
      ["statistics", "statistics"],
    );
    assert.equal((all.blocks[1] as typeof all.blocks[1] & { norm: unknown }).norm, all.stem);
    assert(all.stem.state === shared.state && Object.isFrozen(all) && Object.isFrozen(all.blocks));
    assert.deepEqual(unfreeze(all), model);
    assert.equal(unfreeze(model), model);
    assert.equal(freeze(all), all);

    const some = freeze(model, { affine: true, only: (path) => path === "blocks.0" });
    assert.equal(some.stem, shared);
    assert.equal((some.blocks[0] as BatchNormLayer<A>).frozen, "all");
    assert.equal(some.blocks[1], model.blocks[1]);
    assert.equal(freeze(model, { only: () => false }), model);
    const rest = unfreeze(freeze(model), { only: (path) => path !== "blocks.0" });
    assert.equal((rest.blocks[0] as BatchNormLayer<A>).frozen, "statistics");
    assert.equal(rest.stem.frozen, undefined);
  });

  test("freeze() and unfreeze() name the path of what they cannot take, and refuse what is no model", (device) => {
    const without = initLayer(device, "batchNorm1d", 3, { trackRunningStats: false });
    const shared = trained(device, 3);
    const wrong: [unknown, RegExp][] = [
      [{ a: [without] }, /^Cannot freeze the layer at a\.0 as a frozen layer must have running/],
      [{ a: initLazyLayer("batchNorm1d") }, /^Cannot freeze the layer at a as a lazy batchNorm1d/],
      [{ a: { ...shared, kind: "norm" } }, /^Cannot freeze the layer at a as kind must be/],
      [
        {},
        /^Cannot freeze the layer as it must be or hold a layer .*: current value holds nothing; allow/,
      ],
      [{ a: 1, b: [] }, /current value holds a, b; allowNone/],
      ["stem", /current value is "stem"; allowNone/],
      [null, /current value is null; allowNone/],
    ];
    for (const [model, text] of wrong) {
      assert.throws(() => freeze(model), (error: Error) => {
        assert(error instanceof TypeError);
        assert.match(error.message, text);
        return true;
      });
    }
    assert.throws(() => unfreeze([7]), /^TypeError: Cannot unfreeze the layer as it must be/);
    assert.throws(
      () => freeze({ a: shared, b: shared }, { only: (path) => path === "a" }),
      /^TypeError: Cannot freeze the layer as a is the same layer as b: only must take both/,
    );
    const only = "a" as unknown as () => boolean;
    assert.throws(() => freeze(shared, { only }), /only must be a function of a path: .*"a"$/);
    assert.throws(() => unfreeze(shared, null as never), /options must be a record: .*null$/);
  });
}

function mappingTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("mapLayers() replaces each layer once, by what a function of it and its path makes", (device) => {
    const shared = trained(device, 3);
    const model = { a: shared, list: [trained(device, 2), shared], other: new Map() };
    const seen: string[] = [];
    const mapped = mapLayers(model, (layer, path) => {
      seen.push(path);
      return { ...layer, state: { ...layer.state, momentum: null } };
    });
    assert.deepEqual(seen, ["a", "list.0"]);
    assert.equal(mapped.list[1], mapped.a);
    assert(Object.isFrozen(mapped.a) && Object.isFrozen(mapped.a.state));
    assert.equal(mapped.other, model.other);
    assert.deepEqual([mapped.a.state.momentum, shared.state.momentum], [null, 0.1]);
    assert.equal(mapLayers(model, (layer) => layer), model);
    const one = mapLayers(shared, (layer) => ({ ...layer, activation: "relu" as const }));
    assert.equal(one.activation, "relu");
  });

  test("mapLayers() refuses a layer without a state, and what is no layer afterwards", (device) => {
    const layer = trained(device, 3);
    const same = (given: BatchNormLayer<A>) => given;
    assert.throws(
      () => mapLayers({ a: initLazyLayer("batchNorm") }, same),
      /^TypeError: Cannot map the layers at a as a lazy batchNorm must have seen its channels/,
    );
    assert.equal(mapLayers(layer, same), layer);
    const lazy = { a: initLazyLayer("batchNorm"), b: layer };
    assert.equal(mapLayers(lazy, same, { only: (path) => path === "b" }), lazy);
    assert.throws(
      () => mapLayers([layer], (given) => ({ ...given, state: { ...given.state, eps: -1 } })),
      /^RangeError: Cannot map the layers at 0 as eps must be finite and >= 0/,
    );
    assert.throws(
      () => mapLayers([layer], () => undefined as unknown as BatchNormLayer<A>),
      /^TypeError: Cannot map the layers at 0 as a layer must be .*current value is undefined$/,
    );
    assert.throws(() => mapLayers({}, same), /Cannot map the layers as it must be or hold a layer/);
  });
}

function resettingTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("resetRunningStats() begins anew as a new state does, for a state, a layer and a model", async (device) => {
    const layer = trained(device, 3);
    const fresh = await stateToHost(device, initBatchNorm(device, 3));
    const untracked = initLayer(device, "batchNorm1d", 3, { trackRunningStats: false });
    const lazy = initLazyLayer("batchNorm");
    const model = { layer, bare: layer.state, more: [layer, untracked, lazy] as const };
    const reset = resetRunningStats(device, model);
    assert.deepEqual(await stateToHost(device, reset.layer.state), fresh);
    assert.deepEqual(await stateToHost(device, reset.bare), fresh);
    assert.equal(reset.layer.state.weight, layer.state.weight);
    assert.equal(reset.more[0], reset.layer);
    assert.deepEqual([reset.more[1], reset.more[2]], [untracked, lazy]);
    assert.notDeepEqual((await stateToHost(device, layer.state)).runningMean, fresh.runningMean);
    assert.deepEqual(await stateToHost(device, resetRunningStats(device, layer.state)), fresh);
    const some = resetRunningStats(device, model, { only: (path) => path === "bare" });
    assert(some.layer === layer && some.bare !== model.bare);
  });

  test("resetRunningStats() may change momentum, where nothing is tracked too", async (device) => {
    const options = { momentum: null };
    const { momentum } = resetRunningStats(device, trained(device, 3), options).state;
    assert.equal(momentum, null);
    const untracked = initBatchNorm(device, 3, { trackRunningStats: false });
    assert.equal(resetRunningStats(device, untracked, options).momentum, null);
    // Statistics of the two batches, each counted once: the mean of both.
    let state = resetRunningStats(device, initBatchNorm(device, 1), options);
    for (const values of [[1, 3], [5, 7]]) {
      ({ state } = batchNormForward(state, tensor(device, values, [2, 1]), { device }));
    }
    const { runningMean, runningVar } = await stateToHost(device, state);
    assert.deepEqual([runningMean, runningVar], [Float32Array.of(4), Float32Array.of(2)]);
  });

  test("resetRunningStats() launches all in one batch, frees nothing, and leaks nothing when it fails", (device) => {
    const model = [trained(device, 3), trained(device, 2)];
    const { device: recorded, calls } = record(device);
    const reset = resetRunningStats(recorded, model);
    const launches = calls.filter((call) => call !== "owns" && call !== "describe");
    assert.deepEqual(launches, ["batch", ...Array(4).fill("upload"), "end"]);
    assert(device.owns(model[0].state.runningMean) && device.owns(reset[1].state.runningVar));
    const counted = census(device);
    const broken = failing(counted.device, 2);
    assert.throws(() => resetRunningStats(broken.device, model), /launch 2 failed/);
    assert(broken.reached());
    assert.equal(counted.alive(), 0);
  });

  test("resetRunningStats() names the path of what is no layer or state, and refuses what is no model", (device) => {
    const { state } = trained(device, 3);
    const freed = trained(device, 3);
    release(device, freed.state);
    const wrong: [
      unknown,
      Record<string, unknown>,
      typeof TypeError | typeof RangeError,
      RegExp,
    ][] = [
      [
        { a: freed },
        {},
        TypeError,
        /^Cannot reset the running statistics at a with weight: .*freed/,
      ],
      [[{ ...state, eps: -1 }], {}, RangeError, /at 0 as eps must be finite/],
      [state, { momentum: 2 }, RangeError, /at the model itself as momentum must be in \[0, 1\]/],
      [
        { list: [] },
        {},
        TypeError,
        /must be or hold a state as of initBatchNorm, a layer .* holds list; allowNone/,
      ],
      [state, { only: 1 }, TypeError, /only must be a function of a path: current value is 1$/],
    ];
    for (const [model, options, kind, text] of wrong) {
      assert.throws(() => resetRunningStats(device, model, options), (error: Error) => {
        assert(error instanceof kind, error.message);
        assert.match(error.message, text);
        return true;
      });
    }
  });
}

/** Every way in which a linear layer can stand in a model: its weight, and its bias. */
const SHAPES: readonly { readonly shape: readonly number[]; readonly transposed?: true }[] = [
  { shape: [3, 2] },
  { shape: [3, 2, 2, 2] },
  { shape: [2, 3], transposed: true },
  { shape: [2, 3, 2, 1], transposed: true },
];

function foldingTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("foldModel() gives each linear layer the bits of foldBatchNorm(), however it is stored", async (device) => {
    const norm = { ...trained(device, 3), kind: "batchNorm" as const };
    const state = await stateToHost(device, norm.state);
    const folding = { into: () => "linear", inputRank: () => 2 };
    for (const { shape, transposed } of SHAPES) {
      const values = normalArray(shape.reduce((a, b) => a * b), 7);
      const offsets = Float32Array.of(1, -2, 3);
      const options = transposed && { transposed };
      const whole = (bias: Float32Array | null): LinearLayer => ({
        ...{ weight: values, shape, bias },
        ...options,
      });
      for (const format of ["channelsFirst", "channelsLast"] as const) {
        const weight = stored(device, values, shape, format);
        const biases: [A | Tensor<A> | null, Float32Array | null][] = [
          [null, null],
          [device.upload(offsets), offsets],
          [tensor(device, offsets, [1, 3]), offsets],
        ];
        for (const [bias, given] of biases) {
          const linear = { ...{ weight, bias, name: "mine" }, ...options };
          const folded = await foldModel(device, { linear, norm }, folding);
          const expected = foldBatchNorm(state, whole(given), shape.length);
          const weights = await rowMajor(device, folded.linear.weight);
          assert.deepEqual(weights, expected.weight);
          const after = folded.linear.bias;
          assert(after !== null);
          const [is, wanted] = [after as A | Tensor<A>, bias];
          const isArray = device.owns(is);
          assert.equal(isArray, wanted === null || device.owns(wanted));
          const numbers = device.owns(is)
            ? await device.download(is)
            : await toArray(device, is as Tensor<A>);
          assert.deepEqual(numbers, expected.bias);
          assert.equal(folded.linear.name, "mine");
        }
      }
      const host = await foldModel(device, { linear: whole(null), norm }, folding);
      const expected = foldBatchNorm(state, whole(null), shape.length);
      assert.deepEqual([host.linear.weight, host.linear.bias], [expected.weight, expected.bias]);
    }
  });

  test("foldModel() keeps weights and biases in the storage that they had", async (device) => {
    const half = { dtype: "float16" } as const;
    const norm = trained(device, 3);
    const linear = {
      weight: tensor(device, normalArray(6, 3), [3, 2], half),
      bias: device.upload(Float32Array.of(1, -2, 3), "float16"),
    };
    const folded = await foldModel(device, { linear, norm }, {
      into: () => "linear",
      inputRank: () => 2,
    });
    const { weight, bias } = folded.linear;
    assert.deepEqual([weight.dtype, device.describe(bias).dtype], ["float16", "float16"]);
    const given = { weight: await toArray(device, linear.weight), shape: [3, 2] };
    const expected = foldBatchNorm(await stateToHost(device, norm.state), {
      ...given,
      bias: await device.download(linear.bias),
    }, 2);
    assert.deepEqual(await toArray(device, weight), rounded(expected.weight));
    assert.deepEqual(await device.download(bias), rounded(expected.bias));
  });

  test("foldModel() leaves the identity and the activation in a batch norm's place, and the rest alone", async (device) => {
    const [first, second] = [trained(device, 3), trained(device, 3)];
    const norm = { ...first, activation: "relu" as const, own: "field" };
    const linear = () => ({ weight: stored(device, normalArray(6, 3), [3, 2]), bias: null });
    const model = { a: { linear: linear(), norm }, b: { linear: linear(), norm: second } };
    const folded = await foldModel(device, model, {
      into: (path) => path.replace("norm", "linear"),
      only: (path) => path.startsWith("a."),
      inputRank: () => 2,
    });
    assert.equal(folded.b, model.b);
    const { own, activation, kind, state } = folded.a.norm;
    assert.deepEqual([own, activation, kind, state.eps], ["field", "relu", "batchNorm1d", 0]);
    const x = tensor(device, [-1.5, 0, 2, 1e6, -1e-6, 7], [2, 3]);
    const y = await toArray(device, inferLayer(folded.a.norm, x, { device }));
    assert.deepEqual(y, Float32Array.of(0, 0, 2, 1e6, 0, 7));
    assert(Object.isFrozen(folded) && Object.isFrozen(folded.a.linear));
    assert(device.owns(first.state.weight) && device.owns(model.a.linear.weight.data));
  });

  test("foldModel() keeps what it made alone, and nothing when it fails", async (device) => {
    const norm = trained(device, 3);
    const linear = { weight: stored(device, normalArray(6, 3), [3, 2]), bias: null };
    const options = { into: () => "linear", inputRank: () => 2 };
    const counted = census(device);
    const folded = await foldModel(counted.device, { linear, norm }, options);
    assert.equal(counted.alive(), 4, "weight, bias, running mean, running variance");
    release(device, folded, { keep: norm });
    assert.equal(counted.alive(), 0);
    for (let launch = 0;; launch++) {
      const broken = failing(counted.device, launch);
      const calling = foldModel(broken.device, { linear, norm }, options);
      const [result] = await Promise.allSettled([calling]);
      if (!broken.reached()) {
        assert.equal(result.status, "fulfilled");
        assert(launch > 8, `${launch} launches`);
        break;
      }
      assert.match(String(result.status === "rejected" && result.reason), /launch \d+ failed/);
      assert.equal(counted.alive(), 0, `launch ${launch}`);
    }
  });

  test("foldModel() names the path of what it cannot fold", async (device) => {
    const norm = trained(device, 3);
    const linear = { weight: stored(device, normalArray(6, 3), [3, 2]), bias: null };
    const untracked = initLayer(device, "batchNorm1d", 3, { trackRunningStats: false });
    const into = () => "a";
    const inputRank = () => 2;
    const square = { weight: stored(device, normalArray(9, 3), [3, 3]), bias: null };
    const kernel = { weight: stored(device, normalArray(54, 3), [3, 2, 3, 3]), bias: null };
    const wrong: [unknown, unknown, RegExp][] = [
      [{ a: linear, n: norm }, { into: () => "b" }, /at n as into must tell .*"b", .* with "a"$/],
      [{ n: norm }, { into: () => "n" }, /at n as into must tell the path .*"n", .* with none$/],
      [
        { a: linear, n: norm, m: { ...norm } },
        { into },
        /at m as the layer at a must be .*is that of n too$/,
      ],
      [{ a: linear, b: linear, n: norm }, { into }, /at n as the layer at a .*stands at b too$/],
      [
        { a: linear, n: norm, m: norm },
        { into, inputRank, only: (p: string) => p === "n" },
        /n is the same layer as m/,
      ],
      [
        { a: { weight: linear.weight }, n: norm },
        { into },
        /at n as .* must have a bias, .*holds weight$/,
      ],
      [
        { a: linear, n: trained(device, 2) },
        { into, inputRank },
        /at n as the layer's output channels, axis 0, .*3 and 2/,
      ],
      [{ a: linear, n: untracked }, { into, inputRank }, /at n as it must have running statistics/],
      [{ a: linear, n: initLazyLayer("batchNorm") }, { into }, /at n as a lazy batchNorm/],
      [
        { a: { weight: new Float32Array(6), bias: null }, n: norm },
        { into, inputRank },
        /at n as .*rank >= 2/,
      ],
      // Over the last axis of (N, 3, 3), where the extents do not tell.
      [
        { a: square, n: norm },
        { into },
        /at n as inputRank must tell .*a batchNorm1d behind a lin/,
      ],
      [
        { a: square, n: norm },
        { into, inputRank: () => 3 },
        /at n as the layer's weight must have the rank of .*, 3, or .*: current shape is \(3, 3\)$/,
      ],
      [
        { a: square, n: { ...norm, kind: "batchNorm2d" } },
        { into, inputRank },
        /at n as the layer's weight must have the rank of .*, 4, or .*: current shape is \(3, 3\)$/,
      ],
      [
        { a: kernel, n: norm },
        { into },
        /at n as the layer's weight must have the rank of .*, 3, or .*: .* is \(3, 2, 3, 3\)$/,
      ],
      [{ a: linear, n: norm }, { into, inputRank: 2 }, /as inputRank must be a function .* is 2$/],
      [{ a: linear }, { into }, /as it must be or hold a layer .* holds a; allowNone/],
      [{ a: linear, n: norm }, {}, /as into must be a function .*: current value is undefined$/],
      [
        { a: linear, n: norm },
        undefined,
        /as options must be a record: .*undefined$/,
      ],
    ];
    for (const [model, options, text] of wrong) {
      await assert.rejects(foldModel(device, model, options as never), (error: Error) => {
        assert(error instanceof TypeError, error.message);
        assert.match(error.message, /^Cannot fold the model/);
        assert.match(error.message, text);
        return true;
      });
    }
  });
}

/** A layer that has seen a batch, with a weight and a bias of its own. */
function trained<A>(device: Device<A>, channels: number): BatchNormLayer<A> {
  const layer = initLayer(device, "batchNorm1d", channels);
  const x = tensor(device, normalArray(8 * channels, channels, 2), [8, channels]);
  const { state } = batchNormForward(layer.state, x, { device });
  return { ...layer, state };
}

/** Values in row-major order as a tensor of any format. */
function stored<A>(
  device: Device<A>,
  values: Float32Array,
  shape: readonly number[],
  format: "channelsFirst" | "channelsLast" = "channelsFirst",
): Tensor<A> {
  const at = order(shape, format);
  return tensor(device, Float32Array.from(at, (index) => values[index]), shape, { format });
}

async function rowMajor<A>(device: Device<A>, x: Tensor<A>): Promise<Float32Array> {
  const rows = new Float32Array(x.shape.reduce((a, b) => a * b));
  const values = await toArray(device, x);
  order(x.shape, x.format).forEach((index, i) => rows[index] = values[i]);
  return rows;
}

/** For each element in memory its index in row-major order. */
function order([n, c, ...rest]: readonly number[], format: string): readonly number[] {
  const inner = rest.reduce((a, b) => a * b, 1);
  const all = Array.from({ length: n * c * inner }, (_, i) => i);
  if (format === "channelsFirst") return all;
  return all.map((i) => {
    const [sample, position, channel] = [
      Math.floor(i / (c * inner)),
      Math.floor(i / c) % inner,
      i % c,
    ];
    return (sample * c + channel) * inner + position;
  });
}

function rounded(values: Float32Array): Float32Array {
  return values.map((value) => Math.f16round(value));
}
