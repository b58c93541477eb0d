/** The law in jax-js on its wasm backend: ranks with some of the rows each are jax-js's own formula on all of them. */

import assert from "node:assert/strict";
import { runRanks } from "../../mod.ts";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import { apart, CLOSE } from "./jax_apart.ts";
import {
  CNN,
  MLP,
  type Model,
  type Optimiser,
  rowsOf,
  STEPS,
  trainRank,
  trainWhole,
} from "./jax_models.ts";
import { type JaxModule, loadJax } from "./load_jax.ts";

/** jax-js has workers of its own, which live as long as the process. */
const SANITIZE = { sanitizeOps: false, sanitizeResources: false };

async function open(): Promise<JaxModule> {
  const jax = await loadJax("wasm");
  assert(jax);
  return jax;
}

const CASES: readonly (readonly [Model, Optimiser, readonly (readonly number[])[]])[] = [
  [MLP, "SGD", [[12], [7, 5], [1, 0, 11]]],
  [MLP, "Adam", [[3, 0, 1, 8]]],
  [CNN, "SGD", [[4, 0, 8]]],
  [CNN, "Adam", [[7, 5], [0, 5, 3, 4]]],
];

for (const [model, rule, cuts] of CASES) {
  Deno.test({
    name: `jax-js wasm: ranks train the ${model.name} with ${rule} as jax-js does alone`,
    ...SANITIZE,
    fn: async () => {
      const jax = await open();
      await using device = await wasmDevice();
      const [all] = rowsOf([12]);
      const whole = await trainWhole(jax, model, { rows: all, steps: STEPS, rule });
      for (const counts of cuts) {
        const rows = rowsOf(counts);
        const [first, ...others] = await runRanks(
          counts.length,
          (group) =>
            trainRank(jax, model, { device, group, rows: rows[group.rank], steps: STEPS, rule }),
        );
        const { losses, weights } = apart(first, whole);
        assert(losses <= CLOSE && weights <= CLOSE, `${counts}: off by ${losses}, ${weights}`);
        for (const other of others) assert.deepEqual(other, first, "the same bits on all ranks");
      }
    },
  });
}

Deno.test({
  name: "jax-js wasm: with local batch norms the ranks are far off",
  ...SANITIZE,
  fn: async () => {
    const jax = await open();
    await using device = await wasmDevice();
    const rows = rowsOf([7, 5]);
    const options = { steps: STEPS, rule: "SGD" } as const;
    const whole = await trainWhole(jax, MLP, { rows: rowsOf([12])[0], ...options });
    const [local] = await runRanks(2, async (group) => {
      const normGroup = await group.split(group.rank);
      return trainRank(jax, MLP, {
        ...{ device, group, normGroup, rows: rows[group.rank] },
        ...options,
      });
    });
    const { losses, weights } = apart(local, whole);
    assert(losses > 1000 * CLOSE && weights > 1000 * CLOSE, `off by ${losses}, ${weights}`);
  },
});
