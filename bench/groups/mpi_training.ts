/** A replica under MPI whose training steps are timed: rank 0 prints the medians; the options are an argument. */

import { hostLayers } from "../../examples/host_layers.ts";
import { rankRunner } from "../../examples/runners.ts";
import { mpiGroup } from "../../lib/groups/mpi.ts";
import { referenceDevice } from "../../mod.ts";
import { demoDigits, stepTimes, type TrainingOptions } from "./training.ts";

const options: TrainingOptions = JSON.parse(Deno.args[0]);
const group = mpiGroup();
const digits = await demoDigits();
const runner = rankRunner(hostLayers(referenceDevice()), digits, group);
const times = await stepTimes(runner, digits, options);
if (group.rank === 0) console.log(JSON.stringify(times));
await group.close();
