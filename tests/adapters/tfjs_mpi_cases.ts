/** Two processes of MPI train a model of TensorFlow.js as one process does. */

import assert from "node:assert/strict";
import { hasMpi, launch, withFolder } from "../mpi_kit.ts";
import { loadTf } from "./tfjs_load.ts";
import { trainAlone, type Trained, type Training } from "./tfjs_ranks.ts";

const TASK: Training = {
  ...{ model: "mlp", optimizer: "momentum", counts: [11, 5], rows: 64, epochs: 5 },
};

for (const family of ["Open MPI", "MPICH"] as const) {
  const ignore = !await hasMpi(family);
  Deno.test({
    name: `two processes of ${family} train as one`,
    ignore,
    fn: () =>
      withFolder(async (folder) => {
        const lock = new URL("adapters.lock", import.meta.url).pathname;
        const script = new URL("./tfjs_mpi_rank.ts", import.meta.url).pathname;
        const { code, stderr } = await launch(family, 2, [script, folder, JSON.stringify(TASK)], {
          folder,
          permissions: [`--lock=${lock}`, "--allow-all"],
        });
        assert.equal(code, 0, stderr);
        const [first, second] = await Promise.all([0, 1].map(async (rank): Promise<Trained> =>
          JSON.parse(await Deno.readTextFile(`${folder}/rank.${rank}`))
        ));
        assert.deepEqual(first.weights, second.weights);
        const one = await trainAlone(await loadTf("cpu"), TASK);
        first.weights.flat().forEach((value, i) => {
          const apart = Math.abs(value - one.weights.flat()[i]);
          assert(apart <= 1e-5, `${apart}`);
        });
      }),
  });
}
