/** float16 in memory: all of its numbers, and all that round to them. */

import assert from "node:assert/strict";
import { batchNormInfer, initBatchNorm, toArray } from "../../mod.ts";
import { view } from "../../kernels/wasm_device.ts";
import { openWasm } from "../wasm_kit.ts";

/** Bits of float16, NaN as one. */
const bitsOf = (values: Float16Array<ArrayBuffer>) =>
  new Uint16Array(values.buffer).map((bits) => (bits & 0x7fff) > 0x7c00 ? 0x7e00 : bits);

/** All 65,536 of them. */
const ALL = new Float16Array(Uint16Array.from({ length: 65_536 }, (_, bits) => bits).buffer);

/** Every finite half, the float32 in the middle to the next one, which is a tie, and both neighbours of the tie. */
function hardToRound(): Float32Array<ArrayBuffer> {
  const next = (value: number) => {
    const word = Float32Array.of(value);
    new Uint32Array(word.buffer)[0]++;
    return word[0];
  };
  const before = (value: number) => {
    const word = Float32Array.of(value);
    new Uint32Array(word.buffer)[0]--;
    return word[0];
  };
  const values: number[] = [];
  for (let bits = 0; bits < 0x7c00; bits++) {
    const value = ALL[bits];
    // What would follow the largest finite half is 65,536: from the middle on it is infinite.
    const above = bits === 0x7bff ? 65_536 : ALL[bits + 1];
    const tie = (value + above) / 2;
    for (const near of [value, before(tie), tie, next(tie)]) values.push(near, -near);
  }
  return Float32Array.from([...values, 2 ** -149, -(2 ** -126), 65_536, 3e38, Infinity, -Infinity]);
}

/** Fails unless all are the same, NaN and the sign of 0 included. */
function assertSame(actual: Float32Array, expected: Float32Array): void {
  assert.equal(actual.length, expected.length);
  const wrong = expected.findIndex((value, i) => !Object.is(value, actual[i]));
  assert.equal(wrong, -1, `element ${wrong}: ${actual[wrong]} instead of ${expected[wrong]}`);
}

/** Registers the tests. */
export function halfTests(): void {
  Deno.test("wasm: every float16 is read as what it is, by every way that reads one", async () => {
    const { device, close } = await openWasm({});
    const array = device.allocate(ALL.length, "float16");
    (view(array) as Float16Array).set(ALL);
    const expected = Float32Array.from(ALL);
    assertSame(await device.download(array), expected);
    const zeros = device.upload(new Float32Array(ALL.length), "float16");
    const same = device.addScaled({ x: array, y: zeros, scale: -1 }); // x - 0 is x.
    assertSame(await device.download(same), expected);
    const input = {
      data: array,
      shape: [ALL.length, 1],
      dtype: "float16",
      format: "channelsFirst",
    } as const;
    const unit = initBatchNorm(device, 1, { eps: 0 });
    const rectified = batchNormInfer(unit, input, { device }, { activation: "relu" });
    assertSame(await toArray(device, rectified), expected.map((value) => Math.max(value, 0)));
    // Not by vectors: a length of 1 to 3.
    for (const at of [1, 0x3ff, 0x400, 0x7bff, 0x7c00, 0x7e00, 0x8000, 0xfbff]) {
      const few = device.upload(expected.slice(at, at + 3), "float16");
      assertSame(await device.download(few), expected.slice(at, at + 3));
    }
    await close();
  });

  Deno.test("wasm: float32 rounds to float16 as Float16Array has it, ties to even", async () => {
    const { device, close } = await openWasm({});
    const values = hardToRound();
    const array = device.upload(values, "float16");
    const actual = bitsOf(new Float16Array(view(array) as Float16Array));
    const expected = bitsOf(Float16Array.from(values));
    const wrong = actual.findIndex((bits, i) => bits !== expected[i]);
    assert.equal(wrong, -1, `${values[wrong]} becomes ${actual[wrong]}, not ${expected[wrong]}`);
    const nan = device.upload(Float32Array.of(NaN, -NaN, 1), "float16");
    assertSame(await device.download(nan), Float32Array.of(NaN, NaN, 1));
    await close();
  });
}
