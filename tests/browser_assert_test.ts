/** The assertions that the suites have in browsers, beside Node's own. */

import assert from "node:assert/strict";
import browsers from "./browser/inside/assert.ts";

class Other extends Error {}
const cyclic = (): unknown => {
  const a: Record<string, unknown> = { b: [1] };
  a.self = a;
  return a;
};

/** Calls of assertions that hold in one of two ways: both must think alike of each. */
type Call = (of: typeof assert) => void | Promise<void>;
const PAIRS: readonly (readonly [unknown, unknown])[] = [
  [1, 1],
  [1, "1"],
  [NaN, NaN],
  [0, -0],
  [null, undefined],
  [[1, 2], [1, 2]],
  [[1, 2], [2, 1]],
  [[1, undefined], [1]],
  [{ a: 1, b: [2] }, { b: [2], a: 1 }],
  [{ a: undefined }, {}],
  [{ a: 1 }, Object.assign(Object.create(null), { a: 1 })],
  [Float32Array.of(1, NaN), Float32Array.of(1, NaN)],
  [Float32Array.of(0), Float32Array.of(-0)],
  [Float32Array.of(1), Float64Array.of(1)],
  [Uint8Array.of(1, 2), Uint8Array.of(1, 3)],
  [new Map([["a", [1]]]), new Map([["a", [1]]])],
  [new Map([["a", 1]]), new Map([["a", 2]])],
  [new Set([1, [2]]), new Set([1, [2]])],
  [new Set([1]), new Set([2])],
  [new Error("a"), new Error("a")],
  [new Error("a"), new Error("b")],
  [new Error("a"), new TypeError("a")],
  [new Error("a", { cause: 1 }), new Error("a", { cause: 2 })],
  [/a/g, /a/],
  [cyclic(), cyclic()],
  [Uint8Array.of(1).buffer, Uint8Array.of(2).buffer],
];
const thrower = (error: unknown) => () => {
  throw error;
};
const THROWN = [new TypeError("no room"), new Other("no room"), "no room"];
const WANTED = [
  undefined,
  /no room/,
  /^TypeError: no/,
  TypeError,
  Error,
  Other,
  { message: "no room" },
  { name: "TypeError", message: /room/ },
  { code: "x" },
  () => true,
  () => false,
];

const CALLS: readonly Call[] = [
  (of) => of(true),
  (of) => of(0),
  (of) => of.fail("always"),
  (of) => of.match("abc", /b/),
  (of) => of.match("abc", /d/),
  (of) => of.doesNotMatch("abc", /b/),
  (of) => of.doesNotMatch("abc", /d/),
  (of) => of.throws(() => {}),
  (of) => of.rejects(Promise.resolve()),
  ...PAIRS.flatMap(([a, b]): Call[] => [
    (of) => of.equal(a, b),
    (of) => of.notEqual(a, b),
    (of) => of.deepEqual(a, b),
    (of) => of.notDeepEqual(a, b),
  ]),
  ...THROWN.flatMap((error) =>
    WANTED.flatMap((wanted): Call[] => [
      (of) => of.throws(thrower(error), wanted as RegExp),
      (of) => of.rejects(Promise.reject(error), wanted as RegExp),
      (of) => of.rejects(() => Promise.reject(error), wanted as RegExp),
    ])
  ),
];

async function holds(call: Call, of: typeof assert): Promise<boolean> {
  try {
    await call(of);
    return true;
  } catch {
    return false;
  }
}

Deno.test("the assertions of browsers hold where Node's do, and nowhere else", async () => {
  for (const call of CALLS) {
    const nodes = await holds(call, assert);
    assert.equal(await holds(call, browsers as unknown as typeof assert), nodes, String(call));
  }
});
