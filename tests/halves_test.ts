import assert from "node:assert/strict";
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
