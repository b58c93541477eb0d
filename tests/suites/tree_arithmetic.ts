/** Arithmetic over trees of arrays: every place once, on the device, with nothing left over. */

import assert from "node:assert/strict";
import {
  addScaled,
  allFinite,
  type Device,
  initBatchNorm,
  initLayer,
  mapArrays,
  stateFromHost,
  stateToHost,
  tensor,
  toArray,
} from "../../mod.ts";
import { type DeviceKit, testsOf } from "../kit.ts";
import { census, failing, record } from "../recording.ts";

/** Registers the tests of arithmetic over trees for a device. */
export function treeArithmeticSuite<A>(kit: DeviceKit<A>): void {
  mappingTests(kit);
  finiteTests(kit);
}

/** first + 2 * second. */
function combine<A>(device: Device<A>, first: A, second: A): A {
  return addScaled(device, first, second, 2);
}

function mappingTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("mapArrays() computes array by array and keeps what else is in the first tree", async (device) => {
    const vector = (...values: number[]) => device.upload(Float32Array.from(values));
    const half = tensor(device, [1, 2, 3, 4], [1, 2, 2], {
      ...{ dtype: "float16", format: "channelsLast" },
    });
    const tree = { a: vector(1, 2), b: [half, null], rate: 0.5, name: "mine", on: true };
    const other = { b: [half, null], a: vector(10, 20), rate: 7, name: "its", on: false };
    const result = mapArrays(device, combine, tree, other);
    assert.deepEqual(await device.download(result.a), Float32Array.of(21, 42));
    const [sum, none] = result.b;
    assert(sum !== null && none === null);
    assert.deepEqual([sum.shape, sum.dtype, sum.format], [half.shape, "float16", "channelsLast"]);
    assert.deepEqual(await toArray(device, sum), Float32Array.of(3, 6, 9, 12));
    assert.deepEqual([result.rate, result.name, result.on], [0.5, "mine", true]);
    assert(Object.isFrozen(result) && Object.isFrozen(result.b));
    assert.deepEqual(await device.download(tree.a), Float32Array.of(1, 2));
  });

  test("mapArrays() takes any number of trees, and whole models", async (device) => {
    const layer = initLayer(device, "batchNorm1d", 2);
    const average = mapArrays(
      device,
      (d, first, second, third) =>
        addScaled(d, addScaled(d, addScaled(d, first, first, -1), second, 0.5), third, 0.5),
      { norm: layer },
      { norm: layer },
      { norm: { ...layer, state: mapArrays(device, combine, layer.state, layer.state) } },
    );
    const { weight, runningVar, momentum } = await stateToHost(device, average.norm.state);
    assert.deepEqual([weight, runningVar], [Float32Array.of(2, 2), Float32Array.of(2, 2)]);
    assert.deepEqual([momentum, average.norm.kind], [0.1, "batchNorm1d"]);
    const copy = mapArrays(device, (_, first) => first, layer.state);
    assert.deepEqual(copy, layer.state);
  });

  test("mapArrays() computes once what stands at several places alike", async (device) => {
    const [x, y, z] = [1, 2, 3].map((value) => device.upload(Float32Array.of(value)));
    const result = mapArrays(device, combine, { a: x, b: x, c: x }, { a: y, b: y, c: z });
    assert.equal(result.a, result.b);
    assert.deepEqual(await device.download(result.a), Float32Array.of(5));
    assert.deepEqual(await device.download(result.c), Float32Array.of(7));
  });

  test("mapArrays() launches in one batch, and frees what the body leaves over and what it fails with", (device) => {
    const x = device.upload(Float32Array.of(1, 2));
    const tree = { a: x, b: tensor(device, [3, 4], [2, 1]) };
    const { device: recorded, calls } = record(device);
    mapArrays(recorded, combine, tree, tree);
    const launches = calls.filter((call) => call !== "owns" && call !== "describe");
    assert.deepEqual(launches, ["batch", "addScaled", "addScaled", "end"]);
    const twice = (d: Device<A>, first: A) => addScaled(d, first, addScaled(d, first, first, 1), 1);
    const counted = census(device);
    mapArrays(counted.device, twice, tree);
    assert.equal(counted.alive(), 2);
    for (let launch = 0; launch < 4; launch++) {
      const failed = census(device);
      const broken = failing(failed.device, launch);
      assert.throws(() => mapArrays(broken.device, twice, tree), /launch \d failed/);
      assert.equal(failed.alive(), 0);
    }
  });

  test("mapArrays() names the place of trees that do not fit, and of a result that does not", (device) => {
    const vector = (length: number) => device.upload(new Float32Array(length));
    const [a, b] = [vector(2), vector(3)];
    const image = tensor(device, [1, 2, 3, 4], [1, 2, 2]);
    const other = tensor(device, [1, 2, 3, 4], [1, 2, 2], { format: "channelsLast" });
    const wrong: [unknown, unknown, RegExp][] = [
      [{ a }, { a: b }, /as arrays at a must have one length: current values are 2 and 3$/],
      [{ a }, { b }, /as tree 2 must have arrays where .*: current places are a and b$/],
      [{ a }, { a: null }, /as tree 2 must have arrays where .*: current places are a and none$/],
      [{ a: null }, { a }, /current places are none and a$/],
      [a, { a }, /current places are the tree itself and a$/],
      [
        [image],
        [other],
        /tensors at 0 must have .*\(1,2,2\) channelsFirst and .*channelsLast$/,
      ],
      [
        { a },
        { a: new WeakMap() },
        /as a must be an array or a tensor of the device, .*class WeakMap$/,
      ],
      [{ f: () => {} }, {}, /as f must be .*: current value is a function$/],
    ];
    for (const [first, second, text] of wrong) {
      assert.throws(() => mapArrays(device, combine, first, second), (error: Error) => {
        assert(error instanceof TypeError, error.message);
        assert.match(error.message, /^Cannot map the arrays as /);
        assert.match(error.message, text);
        return true;
      });
    }
    assert.throws(
      () => mapArrays(device, () => b, { a: [a] }),
      /result at a\.0 must have .* length and dtype, 2 float32: current ones are 3 float32$/,
    );
    assert.throws(
      () => mapArrays(device, (d) => d.upload(new Float32Array(2), "float16"), a),
      /result at the tree itself must have .*: current ones are 2 float16$/,
    );
    assert.throws(
      () => mapArrays(device, () => undefined as A, { a }),
      /^TypeError: Cannot map the arrays with the result at a: /,
    );
  });
}

function finiteTests<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("allFinite() finds the one number that is not", async (device) => {
    const state = initBatchNorm(device, 3);
    const tensors = [tensor(device, [1, 2], [1, 2]), tensor(device, [], [0, 2])];
    assert.equal(await allFinite(device, { state, tensors, none: null, text: "NaN" }), true);
    assert.equal(await allFinite(device, {}), true);
    assert.equal(await allFinite(device, { state, rate: NaN }), false);
    const host = await stateToHost(device, state);
    for (const value of [NaN, Infinity, -Infinity]) {
      const runningVar = Float32Array.of(1, 1, value);
      const wrong = stateFromHost(device, { ...host, runningVar });
      assert.equal(await allFinite(device, [state, { deep: [wrong] }]), false);
    }
    const half = tensor(device, [1, 65_520], [2, 1], { dtype: "float16" });
    assert.equal(await allFinite(device, half), false);
    const most = tensor(device, [-3.4e38, 1e-45], [2, 1]);
    assert.equal(await allFinite(device, most), true);
  });

  test("allFinite() reads back in one transfer where the device can, and names what does not belong", async (device) => {
    const { device: recorded, calls } = record(device);
    await allFinite(recorded, initBatchNorm(device, 3));
    const reads = calls.filter((call) => call.startsWith("download"));
    assert.deepEqual(reads, device.downloadAll ? ["downloadAll"] : Array(4).fill("download"));
    await assert.rejects(
      allFinite(device, { a: [new WeakMap()] }),
      /^TypeError: Cannot look for what is not finite as a\.0 must be an array .*class WeakMap$/,
    );
  });
}
