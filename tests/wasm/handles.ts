/** Handles on Wasm devices: views of memory, options, ends, and devices side by side. */

import assert from "node:assert/strict";
import {
  batchNormBackward,
  batchNormForward,
  batchNormInfer,
  DeviceError,
  initBatchNorm,
  referenceDevice,
  region,
  tensor,
  toArray,
} from "../../mod.ts";
import {
  emptyTensor,
  view,
  type WasmArray,
  wasmDevice,
  type WasmOptions,
} from "../../kernels/wasm_device.ts";
import { claimsArray } from "../../lib/data_parallel/trees.ts";
import { normalArray } from "../random.ts";
import { openWasm } from "../wasm_kit.ts";

const lost = (pattern: RegExp) => (error: unknown) => {
  assert(error instanceof DeviceError);
  assert.equal(error.code, "lost");
  assert.match(error.message, pattern);
  return true;
};

/** Registers the tests. */
export function handleTests(): void {
  Deno.test("wasm: nothing of an array can be changed, and one that was freed is still told from a branch", async () => {
    const { device, close } = await openWasm({});
    const [array, freed] = [1, 2].map((value) => device.upload(Float32Array.of(value)));
    device.free(freed);
    for (const name of ["device", "elements"] as const) {
      assert.throws(() => Object.assign(array, { [name]: null }), TypeError, name);
    }
    assert.deepEqual([array, freed].map(claimsArray), [true, true]);
    class Placed {
      get device() {
        return assert.fail("getters are not called");
      }
    }
    const others = [
      {},
      { device: "wasm" },
      new Placed(),
      Object.freeze({ device: "cpu", weight: array }),
    ];
    assert.deepEqual(others.map(claimsArray), [false, false, false, false]);
    await close();
  });

  Deno.test("wasm: a view reads and writes what is there, both ways, without a copy", async () => {
    const { device, close } = await openWasm({});
    const x = emptyTensor(device, [3, 2, 5], { format: "channelsLast" });
    assert(Object.isFrozen(x) && Object.isFrozen(x.shape));
    assert.deepEqual([x.dtype, x.format, x.shape], ["float32", "channelsLast", [3, 2, 5]]);
    assert.deepEqual(device.describe(x.data), { length: 30, dtype: "float32" });
    const values = Float32Array.from({ length: 30 }, (_, i) => i - 7);
    const elements = view(x);
    assert(elements instanceof Float32Array && elements.length === 30);
    elements.set(values);
    assert.deepEqual(await toArray(device, x), values);
    assert.deepEqual(
      view(device.addScaled({ x: x.data, y: x.data, scale: 1 })),
      values.map((value) => 2 * value),
    );
    assert.equal(view(x).buffer, view(x.data).buffer);

    const half = emptyTensor(device, [7, 1], { dtype: "float16" });
    const halves = view(half);
    assert(halves instanceof Float16Array && halves.length === 7);
    halves.set([1.5, -2, 65504, 2 ** -24, 0, -0, NaN]);
    assert.deepEqual(
      await toArray(device, half),
      Float32Array.of(1.5, -2, 65504, 2 ** -24, 0, -0, NaN),
    );
    assert.equal(view(emptyTensor(device, [0, 3])).length, 0);
    await close();
  });

  Deno.test("wasm: a view ends when the memory grows; with threads it stays", async () => {
    for (const threads of [1, 2]) {
      const { device, close } = await openWasm({ options: { threads, initialBytes: 2 ** 16 } });
      const x = tensor(device, [1, 2, 3, 4], [2, 2]);
      const before = view(x);
      device.allocate(100_000, "float32");
      assert.equal(before.length, threads === 1 ? 0 : 4);
      if (threads > 1) before[0] = 5;
      assert.deepEqual([...view(x)], [threads === 1 ? 1 : 5, 2, 3, 4]);
      await close();
    }
  });

  Deno.test("wasm: a view can be uploaded, even where that makes the memory grow", async () => {
    for (const dtype of ["float32", "float16"] as const) {
      const { device, close } = await openWasm({ options: { initialBytes: 2 ** 16 } });
      const x = device.upload(Float32Array.from({ length: 100_000 }, (_, i) => i % 100));
      for (let i = 0; i < 4; i++) {
        const copy = device.upload(view(x) as Float32Array, dtype);
        assert.deepEqual(await device.download(copy), await device.download(x));
      }
      await close();
    }
  });

  Deno.test("wasm: what cannot be viewed is refused", async () => {
    const { device, close } = await openWasm({});
    const other = referenceDevice();
    const x = tensor(device, [1, 2], [2, 1]);
    device.free(x.data);
    assert.throws(() => view(x), /TypeError: .*freed/);
    for (const alien of [other.upload(Float32Array.of(1)), tensor(other, [1], [1, 1])]) {
      assert.throws(() => view(alien as unknown as WasmArray), /TypeError: Cannot view the tensor/);
    }
    for (const nothing of [null, undefined, 5, "x", {}]) {
      const what = () => view(nothing as unknown as WasmArray);
      assert.throws(what, /TypeError: Cannot view the tensor/, `${nothing}`);
    }
    const moments = device.moments({ input: tensor(device, [1, 2], [2, 1]) });
    assert.throws(() => view(moments), /TypeError: .*moments/);
    assert.throws(() => emptyTensor(device, [2]), TypeError);
    assert.throws(() => emptyTensor(device, [2, 0]), RangeError);
    assert.throws(() => emptyTensor(device, [2, 1.5]), RangeError);
    const wrong = other as unknown as typeof device;
    assert.throws(() => emptyTensor(wrong, [2, 1]), /TypeError: .*wasmDevice\(\)/);
    for (const length of [-1, 1.5, NaN, Infinity]) {
      assert.throws(() => device.allocate(length, "float32"), RangeError, `${length}`);
    }
    assert.throws(() => device.allocate(1, "float64" as "float32"), TypeError);
    const { data } = region(device, (d) => emptyTensor(d as typeof device, [1, 1]));
    assert(device.owns(data));
    await close();
  });

  Deno.test("wasm: impossible options are refused by name", async () => {
    const wrong: readonly (readonly [unknown, RegExp])[] = [
      [null, /TypeError: .*options must be a record/],
      [{ threads: 0 }, /RangeError: .*threads must be an integer from 1 to 16: current value is 0/],
      [{ threads: 17 }, /RangeError: .*threads/],
      [{ threads: 1.5 }, /RangeError: .*threads/],
      [{ threads: "2" }, /RangeError: .*threads/],
      [{ maximumBytes: 0 }, /RangeError: .*maximumBytes/],
      [{ maximumBytes: 2 ** 32 + 1 }, /RangeError: .*maximumBytes/],
      [{ initialBytes: -1 }, /RangeError: .*initialBytes/],
      [{ initialBytes: 2 ** 20, maximumBytes: 2 ** 19 }, /RangeError: .*initialBytes.*524288/],
      [{ timeoutMs: 0 }, /RangeError: .*timeoutMs/],
      [{ timeoutMs: 2 ** 31 }, /RangeError: .*timeoutMs/],
      [{ arithmetic: "exact" }, /TypeError: .*arithmetic must be "fast" or "reproducible"/],
    ];
    for (const [options, message] of wrong) {
      await assert.rejects(wasmDevice(options as WasmOptions), message);
    }
  });

  Deno.test("wasm: options that are undefined, or small, are as good as others", async () => {
    const none = {
      threads: undefined,
      arithmetic: undefined,
      initialBytes: undefined,
      maximumBytes: undefined,
      timeoutMs: undefined,
    };
    const expected = [["fast", 1], ["fast", 1], ["fast", 1], ["reproducible", 1], ["fast", 2]];
    const all: WasmOptions[] = [
      ...[{}, none, { maximumBytes: 2 ** 17 }],
      ...[{ arithmetic: "reproducible" } as const, { threads: 2, initialBytes: 1 }],
    ];
    for (const [i, options] of all.entries()) {
      await using device = await wasmDevice(options);
      const { arithmetic, threads, name, float16 } = device.info;
      assert.deepEqual([arithmetic, threads], expected[i]);
      assert.match(name, threads === 2 ? /2 threads\)$/ : /1 thread\)$/);
      assert(float16 && Object.isFrozen(device) && Object.isFrozen(device.info));
      assert.deepEqual(
        await device.download(device.upload(Float32Array.of(3))),
        Float32Array.of(3),
      );
    }
  });

  Deno.test("wasm: a result lies where the array lay that was given up, and nowhere else", async () => {
    const { device, guarded, close } = await openWasm({});
    const state = initBatchNorm(device, 2);
    const values = normalArray(400, 1);
    for (const dtype of ["float32", "float16"] as const) {
      for (const format of ["channelsFirst", "channelsLast"] as const) {
        const put = () => tensor(device, values, [10, 2, 20], { dtype, format });
        const { saved } = batchNormForward(state, put(), { device });
        const [x, dy, kept] = [put(), put(), put()];
        const lay = [x, dy].map((given) => view(given).byteOffset);
        const output = batchNormInfer(state, x, { device }, { donate: true });
        const { gradInput } = batchNormBackward(saved, dy, { device }, { donate: true });
        assert.deepEqual([output, gradInput].map((result) => view(result).byteOffset), lay);
        const other = batchNormInfer(state, kept, { device });
        assert.notEqual(view(other).byteOffset, view(kept).byteOffset);
        const used = guarded.blocks();
        device.free(output.data);
        assert.equal(guarded.blocks(), used - 1);
      }
    }
    await close();
  });

  Deno.test("wasm: a device that lost a thread says so at every call, small ones too", async () => {
    // A result whose second half lies beyond the memory traps on the second thread.
    let beyondAll: number | undefined;
    const options = { threads: 2, initialBytes: 2 ** 20 };
    const { device, close } = await openWasm({
      ...{ options, least: 32 },
      beyond: (memory) => ({
        ...memory,
        allocate: (bytes) => beyondAll ?? memory.allocate(bytes),
        release: (address, bytes) =>
          address === beyondAll ? undefined : memory.release(address, bytes),
      }),
    });
    const x = device.upload(new Float32Array(4096));
    device.addScaled({ x, y: x, scale: 0 });
    beyondAll = view(x).buffer.byteLength - 8192;
    const trapped = lost(/addScaled .* on thread 1/);
    assert.throws(() => device.addScaled({ x, y: x, scale: 0 }), trapped);
    beyondAll = undefined;
    assert.throws(() => device.addScaled({ x, y: x, scale: 0 }), trapped);
    assert.throws(() => device.upload(Float32Array.of(1)), trapped);
    await assert.rejects(device.download(x), trapped);
    assert(device.owns(x));
    await close();
  });

  Deno.test("wasm: a device that was disposed launches nothing, and can still be asked and freed", async () => {
    const device = await wasmDevice({ threads: 2 });
    const state = initBatchNorm(device, 2);
    const x = tensor(device, [1, 2, 3, 4], [2, 2]);
    device[Symbol.dispose]();
    await device[Symbol.asyncDispose]();
    const disposed = lost(/was disposed/);
    assert.throws(() => batchNormForward(state, x, { device }), disposed);
    assert.throws(() => batchNormInfer(state, x, { device }), disposed);
    assert.throws(() => tensor(device, [1], [1, 1]), disposed);
    assert.throws(() => emptyTensor(device, [1, 1]), disposed);
    assert.throws(() => view(x), disposed);
    await assert.rejects(toArray(device, x), disposed);
    assert(device.owns(x.data));
    assert.deepEqual(device.describe(x.data), { length: 4, dtype: "float32" });
    device.free(x.data);
    assert(!device.owns(x.data));
    assert.throws(() => device.free(x.data), /freed/);
  });

  Deno.test("wasm: two devices at once do not take each other's arrays", async () => {
    await using one = await wasmDevice();
    await using two = await wasmDevice();
    const [x, y] = [tensor(one, [1, 2], [2, 1]), tensor(two, [3, 4], [2, 1])];
    const state = initBatchNorm(one, 1);
    assert(one.owns(x.data) && !one.owns(y.data));
    const another = /TypeError: .*another device/;
    assert.throws(() => batchNormForward(state, y, { device: one }), another);
    assert.throws(() => one.addScaled({ x: x.data, y: y.data, scale: 1 }), another);
    assert.throws(() => one.free(x.data, y.data), another);
    assert(one.owns(x.data), "a refused free frees nothing");
    await assert.rejects(one.download(y.data), another);
    assert.deepEqual([...view(x), ...view(y)], [1, 2, 3, 4]);
  });
}
