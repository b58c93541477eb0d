/** The law in jax-js on its wasm backend: ranks with some of the rows each are jax-js's own formula on all of them. */

import assert from "node:assert/strict";
import { runRanks } from "../../mod.ts";
import { wasmDevice } from "../../kernels/wasm_device.ts";
import {
  CNN,
  MLP,
  type Model,
  type Optimiser,
  rowsOf,
  STEPS,
  type Trained,
  trainRank,
  trainWhole,
} from "./jax_models.ts";
import { type JaxModule, loadJax } from "./load_jax.ts";

/** jax-js has workers of its own, which live as long as the process. */
const SANITIZE = { sanitizeOps: false, sanitizeResources: false };

/** Loss and weights may differ by this after 20 steps; 1e-6 is what float32 sums in another order make here. */
export const CLOSE = 1e-5;

/** How far two trainings are apart, in losses and in weights. */
export function apart(a: Omit<Trained, "running">, b: Omit<Trained, "running">) {
  const most = (a: readonly number[], b: readonly number[]) => {
    assert.equal(a.length, b.length);
    return Math.max(...a.map((value, i) => Math.abs(value - b[i])));
  };
  return { losses: most(a.losses, b.losses), weights: most(a.weights, b.weights) };
}

async function open(): Promise<JaxModule> {
  const jax = await loadJax("wasm");
  assert(jax);
  return jax;
}

const CASES: readonly (readonly [Model, Optimiser, readonly (readonly number[])[]])[] = [
  [MLP, "SGD", [[12], [7, 5], [1, 0, 11], [3, 5, 0, 4]]],
  [MLP, "Adam", [[2, 10], [3, 0, 1, 8]]],
  [CNN, "SGD", [[4, 0, 8]]],
  [CNN, "Adam", [[12], [7, 5], [0, 5, 3, 4]]],
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
