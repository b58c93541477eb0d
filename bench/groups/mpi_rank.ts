/** A rank of MPI whose all-reduce is timed: rank 0 prints the lines; the options are an argument, as JSON. */

import { mpiGroup } from "../../lib/groups/mpi.ts";
import { loop, type LoopOptions } from "./loop.ts";

const { checked, ...options }: LoopOptions & { readonly checked: boolean } = JSON.parse(
  Deno.args[0],
);
const group = mpiGroup({ checked });
const lines = await loop(group, options);
if (group.rank === 0) console.log(JSON.stringify({ ranks: group.worldSize, lines }));
await group.close();
