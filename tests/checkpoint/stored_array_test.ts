/** Elements of each dtype as float32, and half precision there and back. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { type StoredArray, toFloat32 } from "../../lib/checkpoint.ts";
import { fromHalf, toHalf } from "../../lib/bits.ts";

/** Every pattern of 16 bits. */
const PATTERNS = Uint16Array.from({ length: 2 ** 16 }, (_, bits) => bits);

/** A class that not every runtime has yet. */
type Halves = new (source: ArrayBuffer | ArrayLike<number>) => Iterable<number> & {
  readonly buffer: ArrayBuffer;
};
const { Float16Array: Half } = globalThis as unknown as { readonly Float16Array?: Halves };

/** Elements of an array of one axis. */
const floats = (
  array: { readonly dtype: string; readonly data: StoredArray["data"] },
) => [...toFloat32({ ...array, shape: [array.data.length] } as StoredArray)];

/** The nearest float32 with ties to even, by integers alone. */
function nearest(value: bigint): number {
  const size = value < 0n ? -value : value;
  const unit = 1n << BigInt(Math.max(0, size.toString(2).length - 24));
  const [kept, rest] = [size / unit, size % unit];
  const up = 2n * rest > unit || (2n * rest === unit && kept % 2n === 1n);
  // At most 2^24 units of a power of two: float64 has them all.
  return Number((up ? kept + 1n : kept) * unit) * (value < 0n ? -1 : 1);
}

Deno.test("toFloat32() rounds I64 once, ties to even, above 2^53 too", () => {
  // By way of float64 the last bit would be lost, and with it what makes it no tie.
  const tie = 2n ** 60n + 2n ** 36n;
  const data = BigInt64Array.of(tie, tie + 1n, -tie - 1n, tie - 1n, tie + 2n ** 37n - 1n);
  const [down, up] = [2 ** 60, 2 ** 60 + 2 ** 37];
  assert.deepEqual(floats({ dtype: "I64", data }), [down, up, -up, down, up]);
  const ties = fc.record({
    kept: fc.bigInt({ min: 2n ** 23n, max: 2n ** 24n - 1n }),
    shift: fc.integer({ min: 1, max: 39 }),
    off: fc.constantFrom(-1n, 0n, 1n),
    sign: fc.constantFrom(1n, -1n),
  }).map(({ kept, shift, off, sign }) =>
    sign * ((kept << BigInt(shift)) + (1n << BigInt(shift - 1)) + off)
  );
  const values = fc.oneof(ties, fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
  fc.assert(
    fc.property(fc.array(values, { minLength: 1, maxLength: 20 }), (values) => {
      const data = BigInt64Array.from(values);
      assert.deepEqual(floats({ dtype: "I64", data }), values.map(nearest));
    }),
    { numRuns: 500 },
  );
  const ends = [2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n, 2n ** 53n + 1n, 2n ** 53n - 1n, 0n];
  assert.deepEqual(
    floats({ dtype: "I64", data: BigInt64Array.from(ends) }),
    [2 ** 63, -(2 ** 63), 2 ** 53, 2 ** 53, 2 ** 53, 0],
  );
});

Deno.test({
  name: "toFloat32() reads every F16 as Float16Array does",
  ignore: !Half,
  fn: () => {
    assert.deepEqual(floats({ dtype: "F16", data: PATTERNS }), [...new Half!(PATTERNS.buffer)]);
  },
});

Deno.test("toFloat32() reads every BF16 as the upper half of a float32", () => {
  const view = new DataView(new ArrayBuffer(4));
  const wanted = Array.from(PATTERNS, (bits) => {
    view.setUint16(0, bits);
    return view.getFloat32(0);
  });
  assert(Number.isNaN(wanted[0x7f81]) && wanted[0xc000] === -2);
  assert.deepEqual(floats({ dtype: "BF16", data: PATTERNS }), wanted);
});

Deno.test("toFloat32() reads the other dtypes: rounded to the nearest, or exact", () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  const cases: [Parameters<typeof floats>[0], number[]][] = [
    [{ dtype: "BOOL", data: bytes }, Array.from(bytes, (byte) => byte > 0 ? 1 : 0)],
    [{ dtype: "U8", data: bytes }, [...bytes]],
    [
      { dtype: "I32", data: Int32Array.of(2 ** 24 + 1, 2 ** 24 + 3, 2 ** 31 - 1, -(2 ** 31)) },
      [2 ** 24, 2 ** 24 + 4, 2 ** 31, -(2 ** 31)],
    ],
    [
      {
        dtype: "F64",
        data: Float64Array.of(1 + 2 ** -24, 1 + 2 ** -24 + 2 ** -52, 1 + 3 * 2 ** -24),
      },
      [1, 1 + 2 ** -23, 1 + 2 ** -22],
    ],
    [
      {
        dtype: "F64",
        data: Float64Array.of(2 ** -150, 2 ** -150 * (1 + 2 ** -52), 1e300, -0, NaN),
      },
      [0, 2 ** -149, Infinity, -0, NaN],
    ],
    [{ dtype: "F32", data: Float32Array.of(-0, 0.1, NaN) }, [-0, Math.fround(0.1), NaN]],
  ];
  for (const [array, wanted] of cases) assert.deepEqual(floats(array), wanted);
});

Deno.test("toFloat32() takes an array from the middle of a buffer, and gives one of its own", () => {
  const cases = [
    { dtype: "F64", data: Float64Array.of(9, 1, 2, 9).subarray(1, 3) },
    { dtype: "F32", data: Float32Array.of(9, 1, 2, 9).subarray(1, 3) },
    { dtype: "F16", data: Uint16Array.of(0, 0x3c00, 0x4000, 0).subarray(1, 3) },
    { dtype: "BF16", data: Uint16Array.of(0, 0x3f80, 0x4000, 0).subarray(1, 3) },
    { dtype: "I64", data: BigInt64Array.of(9n, 1n, 2n, 9n).subarray(1, 3) },
    { dtype: "I32", data: Int32Array.of(9, 1, 2, 9).subarray(1, 3) },
    { dtype: "U8", data: Uint8Array.of(9, 1, 2, 9).subarray(1, 3) },
  ];
  for (const array of cases) {
    const read = toFloat32({ ...array, shape: [2] } as StoredArray);
    assert.deepEqual(read, Float32Array.of(1, 2), array.dtype);
    assert.equal(read.buffer.byteLength, 8, "and of no other memory");
    read.fill(0);
    assert(Number(array.data[0]) !== 0, "the given one is as it was");
  }
});

Deno.test("toFloat32() refuses what is no stored array", () => {
  const array = { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) };
  const cases: [unknown, ErrorConstructor, RegExp][] = [
    [null, TypeError, /must be a record of dtype, shape and data: current value is null$/],
    [undefined, TypeError, /must be a record of .*: current value is undefined$/],
    [() => 1, TypeError, /must be a record of .*: current value is a function$/],
    [array.data, TypeError, /the dtype of the array must be one of U64 I64 F64 .* is undefined$/],
    [{ ...array, dtype: "float32" }, TypeError, /the dtype of the array .* is "float32"$/],
    [
      { ...array, dtype: "F16" },
      TypeError,
      /F16, must be a Uint16Array: .* of class Float32Array$/,
    ],
    [{ ...array, data: [1, 2] }, TypeError, /must be a Float32Array: .* of class Array$/],
    [{ ...array, shape: 2 }, TypeError, /the shape of the array must be an array: .* is 2$/],
    [{ ...array, shape: [3] }, TypeError, /of shape \(3\) needs 3 elements: .* is 2$/],
    [{ ...array, shape: [-2] }, RangeError, /every extent of the array .* is -2$/],
  ];
  for (const [value, kind, message] of cases) {
    assert.throws(() => toFloat32(value as StoredArray), (error: Error) => {
      assert.equal(error.constructor, kind, error.message);
      assert.match(error.message, /^Cannot read the array as float32 as /);
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("toHalf() gives back what fromHalf() has read, and one NaN for all", () => {
  for (const bits of PATTERNS) {
    const value = fromHalf(bits);
    assert(toHalf(value) === (Number.isNaN(value) ? 0x7e00 : bits), `0x${bits.toString(16)}`);
  }
  const nans = new Float32Array(Uint32Array.of(0x7fc00000, 0xffc00000, 0x7f800001).buffer);
  assert.deepEqual(Array.from(nans, toHalf), [0x7e00, 0x7e00, 0x7e00]);
});

Deno.test({
  name: "toHalf() rounds as Float16Array does: around every number and every tie",
  ignore: !Half,
  fn: () => {
    const values = Array.from({ length: 0x7c00 }, (_, bits) => {
      const [low, high] = [fromHalf(bits), bits === 0x7bff ? 2 ** 16 : fromHalf(bits + 1)];
      const tie = (low + high) / 2;
      return [low, tie * (1 - 2 ** -23), tie, tie * (1 + 2 ** -23)];
    }).flat();
    const all = [...values, ...values.map((value) => -value), Infinity, -Infinity, 1e300];
    const wanted = new Uint16Array(new Half!(all).buffer);
    all.forEach((value, at) => assert(toHalf(value) === wanted[at], `${value}`));
  },
});
