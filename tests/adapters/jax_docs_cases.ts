/** The programs of docs/jax.md, whose types types_cases.ts checks. */

import assert from "node:assert/strict";
import { numbersIn, programsOf, withPrograms } from "./docs_programs.ts";

Deno.test("docs/jax.md: the model trains on four workers, whose losses are equal; its Hessian is one", async () => {
  const programs = await programsOf("docs/jax.md");
  assert.deepEqual([...programs.keys()], ["rank.ts", "main.ts", "second.ts"]);
  await withPrograms(programs, async (run) => {
    const losses = numbersIn(await run("run", "main.ts"));
    assert.deepEqual(losses, new Array(4).fill(losses[0]));
    assert(losses[0] > 0 && losses[0] < 1.5, String(losses));
    // v.Hv and the second difference of the loss along v.
    const [product, difference] = numbersIn(await run("run", "second.ts"));
    assert(Math.abs(product) > 0.1, String(product));
    assert(Math.abs(product - difference) < 0.02 * Math.abs(product), `${product}, ${difference}`);
  });
});
