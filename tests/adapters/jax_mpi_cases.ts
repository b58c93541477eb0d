/** Processes of MPI train a model of jax-js as jax-js does in one. */

import assert from "node:assert/strict";
import { hasMpi, launch, withFolder } from "../mpi_kit.ts";
import { apart, CLOSE } from "./jax_apart.ts";
import { MLP, rowsOf, STEPS, type Trained, trainWhole } from "./jax_models.ts";
import { loadJax } from "./load_jax.ts";

const COUNTS = [5, 0, 7];

Deno.test({
  name: "jax-js over Open MPI: three processes train as jax-js does in one",
  ignore: !await hasMpi("Open MPI"),
  // jax-js has workers of its own, which live as long as the process.
  ...{ sanitizeOps: false, sanitizeResources: false },
  fn: () =>
    withFolder(async (folder) => {
      const path = (name: string) => new URL(name, import.meta.url).pathname;
      const args = [folder, JSON.stringify(COUNTS), String(STEPS)];
      const script = [path("jax_mpi_rank.ts"), ...args];
      const { code, stderr } = await launch("Open MPI", COUNTS.length, script, {
        folder,
        permissions: [`--lock=${path("adapters.lock")}`, "--allow-all"],
      });
      assert.equal(code, 0, stderr);
      const [first, ...others] = await Promise.all(COUNTS.map(async (_, rank): Promise<Trained> =>
        JSON.parse(await Deno.readTextFile(`${folder}/rank.${rank}`))
      ));
      const jax = await loadJax("wasm");
      const options = { rows: rowsOf([12])[0], steps: STEPS, rule: "Adam" } as const;
      const { losses, weights } = apart(first, await trainWhole(jax!, MLP, options));
      assert(losses <= CLOSE && weights <= CLOSE, `off by ${losses}, ${weights}`);
      for (const other of others) {
        assert.deepEqual(other, first, "the same bits on all ranks");
      }
    }),
});
