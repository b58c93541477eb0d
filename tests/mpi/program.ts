/** A program that starts, or ends, as it should not: what its argument says, with options of the group in a second one. */

import { mpiGroup, type MpiOptions } from "../../lib/groups/mpi.ts";

const [what, options = "{}"] = Deno.args;

function join(): ReturnType<typeof mpiGroup> {
  try {
    return mpiGroup(JSON.parse(options) as MpiOptions);
  } catch (error) {
    const { name, message, code } = error as Error & { code?: string };
    console.error(`${name} ${code}: ${message}`);
    Deno.exit(3);
  }
}

/** Rank 1 does it while the others wait. */
async function inRank1(body: () => void): Promise<void> {
  const group = join();
  if (group.rank === 1) body();
  await group.barrier();
}

const PROGRAMS: Record<string, () => Promise<void>> = {
  close: async () => {
    const group = join();
    console.log(
      `rank ${group.rank} of ${group.worldSize}, ${group.localRank} of ${group.localSize}`,
    );
    await group.close();
  },
  end: async () => {
    await join().barrier();
  },
  exit: () => inRank1(() => Deno.exit(0)),
  throw: () =>
    inRank1(() => {
      throw new Error("out of data");
    }),
  kill: () => inRank1(() => Deno.kill(Deno.pid, "SIGKILL")),
  abort: () => {
    const group = join();
    return group.rank === 1 ? group.abort(7) : group.barrier();
  },
  choices: async () => {
    const rank = Deno.env.get("OMPI_COMM_WORLD_RANK") ?? Deno.env.get("PMI_RANK");
    mpiGroup({ checked: rank === "0" });
    await Promise.resolve();
  },
  catchChoices: async () => {
    const rank = Deno.env.get("OMPI_COMM_WORLD_RANK") ?? Deno.env.get("PMI_RANK");
    try {
      mpiGroup({ checked: rank === "0" });
    } catch {
      // And goes on as if nothing had happened.
    }
    await Promise.resolve();
  },
  abortAfterClose: async () => {
    const group = join();
    await group.close();
    await group.close().catch((error) => console.error(error.message));
    return group.abort(9);
  },
  worker: async () => {
    const worker = new Worker(import.meta.url, { type: "module", name: "worker" });
    await new Promise((resolve) => worker.onmessage = ({ data }) => resolve(console.error(data)));
    worker.terminate();
  },
};

if (!("WorkerGlobalScope" in globalThis)) await PROGRAMS[what]();
else {
  try {
    mpiGroup();
  } catch (error) {
    (self as unknown as Worker).postMessage((error as Error).message);
  }
}
