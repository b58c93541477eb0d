/** The law in jax-js in Chromium, on both of its backends. */

import assert from "node:assert/strict";
import { hasBrowser } from "../browser/browsers.ts";
import { apart, CLOSE } from "./jax_apart.ts";
import type { Compared } from "./jax_page.ts";
import { JAX } from "./load_jax.ts";
import { visitPage } from "./page_visit.ts";

Deno.test({
  name: "jax-js in Chromium, on wasm and webgpu: ranks train as jax-js does alone",
  ignore: !(await hasBrowser("chromium")),
  fn: async () => {
    const all = await visitPage<readonly Compared[] | string>("jax_page.ts", [JAX]);
    if (typeof all === "string") assert.fail(all);
    assert.deepEqual(all.map(({ backend }) => backend), ["wasm", "webgpu"]);
    for (const { backend, whole, ranks: [first, ...others] } of all) {
      const { losses, weights } = apart(first, whole);
      assert(losses <= CLOSE && weights <= CLOSE, `${backend}: off by ${losses}, ${weights}`);
      for (const other of others) assert.deepEqual(other, first, "the same bits on all ranks");
    }
  },
});
