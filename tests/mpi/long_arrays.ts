/**
 * A rank that reduces a long array, and prints the most memory that it had beyond its start, in multiples of the array.
 * Needs /proc. The arguments: whose function, how many values, how often (once).
 */

import assert from "node:assert/strict";
import { type Combine, combineMoments } from "../../mod.ts";
import { mpiGroup } from "../../lib/groups/mpi.ts";

const [name, values, times = "1"] = Deno.args;
const length = Number(values);
const mostBytes = () =>
  1024 * Number(/VmHWM:\s+(\d+)/.exec(Deno.readTextFileSync("/proc/self/status"))?.[1]);

/** An element of the total depends on another of what came before. */
const turned: Combine = function turned(a, b) {
  const total = new Float64Array(b);
  for (let i = 0; i < total.length; i++) total[i] += 2 * a[total.length - 1 - i];
  return total;
};

const group = mpiGroup();
const { rank, worldSize, allReduce, allReduceBlocking } = group;
// What compiling, the modules and MPI itself take is no matter of lengths.
const combine = name === "turned" ? turned : combineMoments;
await allReduce(new Float64Array(100_001).fill(rank + 1), combine);
const before = mostBytes();
const own = new Float64Array(length).fill(rank + 1);
const lasts: number[] = [];
for (let i = 0; i < Number(times); i++) {
  const total = i % 2 === 0 ? await allReduce(own, combine) : allReduceBlocking(own, combine);
  lasts.push(combine === turned ? total[length - 1] : total[0]);
}
const most = (mostBytes() - before) / (8 * length);
const ranks = Array.from({ length: worldSize }, (_, other) => other + 1);
const last = combine === turned
  ? ranks.reduce((total, value) => 2 * total + value)
  : ranks.reduce((a, b) => a + b);
assert(lasts.every((value) => value === last), `${lasts} instead of ${last}`);
console.log(JSON.stringify({ rank, most }));
await group.close();
