/** A rank of MPI whose steps are timed: rank 0 prints the medians; the options are an argument, as JSON. */

import { mpiGroup } from "../../lib/groups/mpi.ts";
import { timeSteps } from "./step.ts";

const group = mpiGroup();
const times = await timeSteps(group, JSON.parse(Deno.args[0]));
if (group.rank === 0) console.log(JSON.stringify(times));
await group.close();
