/** A process of the test of jax-js over MPI: it trains, and leaves what it has learnt in the folder that it is told. */

import { wasmDevice } from "../../kernels/wasm_device.ts";
import { mpiGroup } from "../../lib/groups/mpi.ts";
import { MLP, rowsOf, trainRank } from "./jax_models.ts";
import { loadJax } from "./load_jax.ts";

const [folder, counts, steps] = Deno.args;
const group = await mpiGroup();
const jax = await loadJax("wasm");
const device = await wasmDevice();
const rows = rowsOf(JSON.parse(counts))[group.rank];
const options = { device, group, rows, steps: Number(steps), rule: "Adam" } as const;
const trained = await trainRank(jax!, MLP, options);
await Deno.writeTextFile(`${folder}/rank.${group.rank}`, JSON.stringify(trained));
await group.close();
Deno.exit(0); // jax-js keeps threads of its own.
