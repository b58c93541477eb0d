import assert from "node:assert/strict";
import { boundsOf } from "../lib/activation.ts";
import type { DType } from "../mod.ts";
import { halves } from "./halves.ts";
import { normalArray } from "./random.ts";

Deno.test("halves() rounds as Float16Array does", () => {
  const all = Float16Array.from(
    new Float16Array(Uint16Array.from({ length: 2 ** 16 }, (_, i) => i).buffer),
  )
    .filter((value) => !Number.isNaN(value));
  // Every float16, what lies half way to the next one, and what lies anywhere.
  const between = [...all].map((value, i) => (value + (all[i + 1] ?? 0)) / 2);
  const anywhere = [1e-9, 1e-4, 1, 1e4].flatMap((scale) =>
    [...normalArray(1000, 1)].map((value) => value * scale * 8)
  );
  for (const values of [[...all], between, anywhere]) {
    const finite = values.filter((value) => !Number.isNaN(value));
    assert.deepEqual(halves(finite), Float32Array.from(Float16Array.from(finite)));
  }
});

Deno.test("an activation's bound is that of its results' dtype, in a runtime without Float16Array too", () => {
  const bound = (dtype: DType) => boundsOf({ maxValue: 1.1 }, dtype).maxValue;
  assert.equal(bound("float32"), Math.fround(1.1));
  const own = Object.getOwnPropertyDescriptor(globalThis, "Float16Array")!;
  const expected = Float16Array.of(1.1)[0];
  Reflect.deleteProperty(globalThis, "Float16Array");
  try {
    assert.equal(bound("float16"), expected);
  } finally {
    Object.defineProperty(globalThis, "Float16Array", own);
  }
});
