/** The elements of state dicts on their way to a device and back: their order, their bits, their dtypes. */

import assert from "node:assert/strict";
import { type Device, type Format, tensor, toArray } from "../../mod.ts";
import { fromStateDict, type StoredArray, toFloat32, toStateDict } from "../../lib/checkpoint.ts";
import { f32, plain } from "../checkpoint/state_dicts.ts";
import { ODD_BITS, ofBits, range } from "../data_parallel.ts";
import { type DeviceKit, testsOf } from "../kit.ts";

/** Registers the tests of elements for a device. */
export function numberSuite<A>(kit: DeviceKit<A>): void {
  const test = testsOf(kit);

  test("a tensor is stored row by row over its logical shape, in both formats", async (device) => {
    const shape = [2, 3, 2, 1];
    // Where each logical element (2 samples, 3 channels, 2 positions) lies in memory.
    const orders: Record<Format, number[]> = {
      channelsFirst: range(12),
      channelsLast: [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11],
    };
    for (const format of ["channelsFirst", "channelsLast"] as const) {
      const model = { x: tensor(device, range(12), shape, { format }) };
      const dict = await toStateDict(device, model);
      const data = Float32Array.from(orders[format]);
      assert.deepEqual(dict.get("x"), { dtype: "F32", shape, data });
      const blank = { x: tensor(device, new Float32Array(12), shape, { format }) };
      const { x } = fromStateDict(device, blank, dict).model;
      assert.deepEqual(await toArray(device, x), Float32Array.from(range(12)));
      assert.deepEqual({ ...x, data: 0 }, { ...blank.x, data: 0 });
      const inside = Float32Array.of(-1, ...orders[format], -1).subarray(1, 13);
      const { x: again } =
        fromStateDict(device, blank, { x: { dtype: "F32", shape, data: inside } })
          .model;
      assert.deepEqual(await toArray(device, again), Float32Array.from(range(12)));
    }
  });

  test("stored float32 is read with all its bits", () => {
    const data = ofBits(...ODD_BITS);
    const read = toFloat32({ dtype: "F32", shape: [data.length], data });
    assert.deepEqual(new Uint32Array(read.buffer), new Uint32Array(data.buffer));
    assert.notEqual(read.buffer, data.buffer);
  });

  test("float32 gets to the device with all its bits", (device) => {
    // With a NaN that signals, which does so no more once it was a number. The device may do that, we do not.
    const bits = [...ODD_BITS, 0x7f800001, 0xff800002];
    const { batch: _batch, ...unqueued } = device;
    const uploads: number[][] = [];
    const watched: Device<A> = {
      ...unqueued,
      upload: (values, dtype) => {
        uploads.push([...new Uint32Array(values.buffer, values.byteOffset, values.length)]);
        return device.upload(values, dtype);
      },
    };
    const last = tensor(device, new Float32Array(8), [1, 1, 8], { format: "channelsLast" });
    const model = { first: device.upload(new Float32Array(8)), last };
    const [data, shape] = [ofBits(...bits), [1, 1, 8]];
    const first: StoredArray = { dtype: "F32", shape: [8], data };
    fromStateDict(watched, model, { first, last: { dtype: "F32", shape, data } });
    assert.deepEqual(uploads, [bits, bits]);
  });

  test("a state dict keeps half precision exactly, or the device says that it has none", async (device) => {
    const options = { dtype: "float16", format: "channelsLast" } as const;
    const make = (values: readonly number[]) => tensor(device, values, [1, 3, 2], options);
    if (!device.info.float16) return assert.throws(() => make(range(6)), /float16/);
    // The largest, the smallest normal and subnormal, 0 of both signs, and one that float16 rounds.
    const values = [65504, 2 ** -14, 2 ** -24, -0, 0, 1 / 3];
    const model = { x: make(values), bare: device.upload(Float32Array.of(1, 2), "float16") };
    const dict = await toStateDict(device, model);
    const data = Uint16Array.of(0x7bff, 0x8000, 0x0400, 0x0000, 0x0001, 0x3555);
    assert.deepEqual(dict.get("x"), { dtype: "F16", shape: [1, 3, 2], data });
    assert.deepEqual(dict.get("bare")?.dtype, "F16");
    const odd = device.upload(Float32Array.of(NaN, -Infinity), "float16");
    const { data: bits } = (await toStateDict(device, odd)).get("")!;
    assert.deepEqual(bits, Uint16Array.of(0x7e00, 0xfc00));
    const blank = { x: make(range(6)), bare: device.upload(new Float32Array(2), "float16") };
    const loaded = fromStateDict(device, blank, dict).model;
    assert.equal(loaded.x.dtype, "float16");
    assert.deepEqual(device.describe(loaded.bare), { length: 2, dtype: "float16" });
    assert.deepEqual(await toArray(device, loaded.x), await toArray(device, model.x));
    assert.deepEqual(plain(await toStateDict(device, loaded)), plain(dict));
    const wider = fromStateDict(device, { bare: blank.bare }, { bare: f32(0.1, 70000) }).model.bare;
    assert.deepEqual(await device.download(wider), Float32Array.of(0.0999755859375, Infinity));
  });

  test("fromStateDict() converts any dtype", async (device) => {
    const shape = [2];
    const cases: [StoredArray, number[]][] = [
      [{ dtype: "F64", shape, data: Float64Array.of(0.1, 1e-300) }, [Math.fround(0.1), 0]],
      [{ dtype: "F16", shape, data: Uint16Array.of(0x3c00, 0xc000) }, [1, -2]],
      [{ dtype: "BF16", shape, data: Uint16Array.of(0x3f80, 0xc000) }, [1, -2]],
      [{ dtype: "I64", shape, data: BigInt64Array.of(2n ** 24n + 1n, -1n) }, [2 ** 24, -1]],
      [{ dtype: "I32", shape, data: Int32Array.of(3, -4) }, [3, -4]],
      [{ dtype: "U8", shape, data: Uint8Array.of(255, 0) }, [255, 0]],
      [{ dtype: "BOOL", shape, data: Uint8Array.of(7, 0) }, [1, 0]],
    ];
    const model = { x: device.upload(new Float32Array(2)) };
    for (const [x, expected] of cases) {
      const loaded = fromStateDict(device, model, { x }).model;
      assert.deepEqual([...await device.download(loaded.x)], expected, x.dtype);
    }
  });
}
