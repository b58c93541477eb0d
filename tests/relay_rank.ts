/** A rank in a process of its own that reaches the others by a relay: prints its new state. Arguments: url, rank, ranks. */

import { joinRelay } from "../examples/relay_link.ts";
import {
  fromAllGather,
  initBatchNorm,
  referenceDevice,
  stateToHost,
  syncBatchNormForward,
  tensor,
} from "../mod.ts";
import { normalArray } from "./random.ts";

const [url, rank, worldSize] = [Deno.args[0], Number(Deno.args[1]), Number(Deno.args[2])];
const device = referenceDevice();
await using link = await joinRelay(url, { rank, worldSize });
const group = { worldSize, allReduce: fromAllGather(link.allGather) };
// Uneven: rank r has r + 1 rows of the batch.
const input = tensor(device, normalArray(3 * (rank + 1), rank, 5), [rank + 1, 3]);
const { state } = await syncBatchNormForward(initBatchNorm(device, 3), input, { device, group });
const { runningMean, runningVar } = await stateToHost(device, state);
console.log(JSON.stringify([...runningMean ?? [], ...runningVar ?? []]));
