import assert from "node:assert/strict";
import fc from "fast-check";
import { combineMoments, sum } from "../mod.ts";
import { assertClose } from "./kit.ts";
import * as oracle from "./oracle.ts";

/** Moments of some values of one channel, by the oracle. */
function momentsOf(values: readonly number[]): Float64Array {
  const { count, mean, variance } = oracle.statistics({ values, channels: 1, inner: 1 });
  return Float64Array.of(count, mean[0], count * variance[0]);
}

const finite = fc.double({ min: -1e6, max: 1e6, noNaN: true });
const parts = fc.array(fc.array(finite, { maxLength: 6 }), { minLength: 1, maxLength: 6 });

Deno.test("combineMoments() gives the moments of all values, in any order and any grouping", () => {
  fc.assert(fc.property(parts, fc.nat(), (values, shuffle) => {
    const all = values.flat();
    const expected = momentsOf(all);
    const wires = values.map(momentsOf);
    const rotated = [
      ...wires.slice(shuffle % wires.length),
      ...wires.slice(0, shuffle % wires.length),
    ];
    const left = (list: Float64Array[]) => list.reduce((a, b) => combineMoments(a, b));
    const right = (list: Float64Array[]) => list.reduceRight((a, b) => combineMoments(b, a));
    const tree = (list: Float64Array[]): Float64Array => {
      if (list.length === 1) return list[0];
      const middle = list.length >> 1;
      return combineMoments(tree(list.slice(0, middle)), tree(list.slice(middle)));
    };
    // Rounding of float64 in units of the largest value; m2 in its square, once per value.
    const size = Math.max(1, ...all.map(Math.abs));
    const absolute = [0, 1e-14 * size, 1e-14 * size * size * (1 + all.length)];
    for (const fold of [left, right, tree]) {
      for (const order of [wires, rotated]) {
        assertClose(fold(order), expected, { absolute, relative: 1e-14 }, fold.name);
      }
    }
  }));
});

Deno.test("combineMoments() with an empty side is exactly the other, with any mean in it", () => {
  fc.assert(
    fc.property(fc.array(finite, { minLength: 1, maxLength: 5 }), finite, (values, mean) => {
      const some = momentsOf(values);
      const none = Float64Array.of(0, mean, 0);
      assert.deepEqual(combineMoments(some, none), some);
      assert.deepEqual(combineMoments(none, some), some);
    }),
  );
});

Deno.test("combineMoments() of equal constants has no variance, exactly", () => {
  fc.assert(fc.property(finite, fc.nat(100), fc.nat(100), (drawn, a, b) => {
    const value = drawn + 0; // -0 and 0 are one value.
    const merged = combineMoments(
      Float64Array.of(1 + a, value, 0),
      Float64Array.of(1 + b, value, 0),
    );
    assert.deepEqual(merged, Float64Array.of(2 + a + b, value, 0));
  }));
});

Deno.test("combineMoments() and sum() keep their arguments", () => {
  const [a, b] = [Float64Array.of(2, 1, 3), Float64Array.of(4, 5, 6)];
  for (const combine of [combineMoments, sum]) {
    combine(a, b);
    assert.deepEqual([a, b], [Float64Array.of(2, 1, 3), Float64Array.of(4, 5, 6)]);
  }
});

Deno.test("combineMoments() and sum() refuse arrays that do not fit", () => {
  const wire = (length: number) => new Float64Array(length);
  assert.throws(() => sum(wire(2), wire(3)), /lengths must be equal: current values are 2 and 3/);
  assert.throws(() => combineMoments(wire(3), wire(5)), /lengths must be equal/);
  assert.throws(
    () => combineMoments(wire(4), wire(4)),
    /\[count, mean C, m2 C\]: current length is 4/,
  );
});
