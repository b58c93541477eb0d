/**
 * A program that reduces long arrays over workers, and prints the most memory that it had beyond that of a run with
 * short ones, in multiples of all arrays together. Needs /proc. The arguments: address of the
 * worker, transport, ranks, values of each, by what.
 */

import { spawnWorkers } from "../../lib/groups/workers.ts";
import type { WorkerTask } from "../worker_rank.ts";
import type { reduceLong, Reduction } from "./long_arrays_rank.ts";

const [worker, transport, ranks, length, by] = Deno.args;
const mostBytes = () =>
  1024 * Number(/VmHWM:\s+(\d+)/.exec(Deno.readTextFileSync("/proc/self/status"))?.[1]);

const run = (length: number) =>
  spawnWorkers<WorkerTask, Awaited<ReturnType<typeof reduceLong>>>(
    () => new Worker(worker, { type: "module" }),
    Number(ranks),
    {
      transport: transport as "shared" | "port",
      parameter: { name: "reduceLong", parameter: { length, by: by as Reduction } },
    },
  );
// What threads, modules and compiling take is no matter of lengths.
await run(101);
const before = mostBytes();
const totals = await run(Number(length));
const times = (mostBytes() - before) / (8 * Number(length) * Number(ranks));
console.log(JSON.stringify({ totals, times }));
