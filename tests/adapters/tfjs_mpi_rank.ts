/** A process of the adapter's test over MPI: it trains, and leaves what it has learnt in the folder that it is told. */

import { mpiGroup } from "../../lib/groups/mpi.ts";
import { loadTf } from "./tfjs_load.ts";
import { type Training, trainRank } from "./tfjs_ranks.ts";

const [folder, task] = Deno.args;
const group = await mpiGroup();
const trained = await trainRank(await loadTf("cpu"), group, JSON.parse(task) as Training);
await Deno.writeTextFile(`${folder}/rank.${group.rank}`, JSON.stringify(trained));
await group.close();
