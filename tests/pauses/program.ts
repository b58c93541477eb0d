/**
 * What a process does while it is stopped and goes on, again and again: collectives or kernels whose every result is
 * checked, with waits in between. The arguments say what: an engine, for how many ms, and a folder to leave process ids and
 * counts in.
 */

import { mpiGroup } from "../../lib/groups/mpi.ts";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import { view, wasmDevice } from "../../kernels/wasm_device.ts";
import { batchNormForward, initBatchNorm, region, runRanks, tensor } from "../../mod.ts";
import { collect, type Count } from "./collect.ts";
import { startWorker, type WorkerTask } from "../worker_rank.ts";

/** The deadline, in ms: shorter than a stop. */
export const TIMEOUT_MS = 600;
const RANKS = 4;
const COLLECT = new URL("./collect.ts", import.meta.url).href;

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Kernels on two threads; no pause of theirs is to be had, so there are many. */
async function compute(ms: number): Promise<Count> {
  await using device = await wasmDevice({ threads: 2, timeoutMs: TIMEOUT_MS });
  const state = initBatchNorm(device, 4, { eps: 0 });
  const values = Float32Array.from({ length: 4 * 60_000 }, (_, i) => i % 2 === 0 ? -1 : 1);
  const input = tensor(device, values, [1, 4, 60_000]);
  let [results, wrong] = [0, 0];
  for (const end = performance.now() + ms; performance.now() < end;) {
    region(device, (device) => {
      const y = view(batchNormForward(state, input, { device }).output);
      results++;
      if (y[0] !== -1 || y[1] !== 1 || y[y.length - 1] !== 1) wrong++;
      return null;
    });
    if (results % 50 === 0) await pause(1);
  }
  return { results, wrong };
}

async function inWorkers(ms: number, options: object): Promise<Count> {
  const counts = await spawnWorkers<WorkerTask, Count>(
    () => startWorker(COLLECT),
    RANKS,
    {
      ...options,
      timeoutMs: TIMEOUT_MS,
      capacity: 64,
      parameter: { name: "collect", parameter: ms },
    },
  );
  return total(counts);
}

function total(counts: readonly Count[]): Count {
  return counts.reduce((a, b) => ({ results: a.results + b.results, wrong: a.wrong + b.wrong }));
}

/** Says that this process may be stopped from now on, and what came of it. */
function write(folder: string, name: string, what: unknown): void {
  Deno.writeTextFileSync(`${folder}/part.${name}`, JSON.stringify(what));
  Deno.renameSync(`${folder}/part.${name}`, `${folder}/${name}`);
}

async function withMpi(ms: number, folder: string): Promise<void> {
  const group = mpiGroup({ timeoutMs: TIMEOUT_MS });
  try {
    write(folder, `pid.${group.rank}`, Deno.pid);
    write(folder, `count.${group.rank}`, await collect(group, ms));
    await group.close();
  } catch (error) {
    console.error(error);
    group.abort();
  }
}

const ENGINES: Record<string, (ms: number) => Promise<Count>> = {
  "in process": async (ms) =>
    total(await runRanks(RANKS, (group) => collect(group, ms), { timeoutMs: TIMEOUT_MS })),
  "workers": (ms) => inWorkers(ms, { transport: "shared" }),
  "workers, blocking": (ms) => inWorkers(ms, { transport: "shared", wait: "block" }),
  "workers over ports": (ms) => inWorkers(ms, { transport: "port" }),
  "Wasm threads": compute,
};

/** Names of what one process can run. */
export const PAUSED: readonly string[] = Object.keys(ENGINES);

if (import.meta.main) {
  const [engine, text, folder] = Deno.args;
  const ms = Number(text);
  if (engine === "MPI") await withMpi(ms, folder);
  else {
    write(folder, "pid.0", Deno.pid);
    write(folder, "count.0", await ENGINES[engine](ms));
  }
}
