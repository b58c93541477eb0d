/** A rank of MPI that does a task of `ranks.ts`: rank 0 prints what came of it; the order is an argument, as JSON. */

import { mpiGroup } from "../lib/groups/mpi.ts";

const { task: { module, name }, parameter, checked, ranks } = JSON.parse(Deno.args[0]);
const { [name]: body } = await import(module);
const group = mpiGroup({ checked });
if (group.worldSize !== ranks) throw new Error(`each rank is in a world of ${group.worldSize}`);
const result = await body(group, parameter);
if (group.rank === 0) console.log(JSON.stringify(result));
await group.close();
