/** Groups in Node: ranks in one thread, and in workers of node:worker_threads, with all that may befall those. */

import assert from "node:assert/strict";
import { Worker } from "node:worker_threads";
import { isMpiError, mpiGroup } from "../../lib/groups/mpi.ts";
import { serveRank, type SpawnOptions, spawnWorkers } from "../../lib/groups/workers.ts";
import { runRanks } from "../../mod.ts";
import type { GroupKit, Register } from "../kit.ts";
import { blockingSuite } from "../suites/blocking.ts";
import { foldInRankOrder, groupSuite } from "../suites/groups.ts";
import { groupLaw } from "../suites/law.ts";
import type { Plan } from "./plan.ts";
import type { Seen, Task } from "./rank.ts";

const RANK = new URL("./rank.js", import.meta.url);
const ASYNC = { transport: "shared" } as const;
const BLOCK = { transport: "shared", wait: "block" } as const;
const PORTS = { transport: "port" } as const;

/** Registers the tests. */
export function groupTests(register: Register, { everything }: Plan): void {
  const inThread: GroupKit = {
    ...{ name: "in-process", register },
    run: (worldSize, { body }, parameter, options) =>
      runRanks(worldSize, (group) => body(group, parameter), options),
  };
  const kits = everything ? [inThread, workers("workers over ports", PORTS)] : [];
  for (const kit of [...kits, workers("blocking workers", BLOCK)]) {
    const own = { ...kit, register };
    groupLaw(own, 30);
    if (own.blocks) blockingSuite(own);
    if (everything) groupSuite(own);
  }
  for (const [name, options] of Object.entries({ ASYNC, BLOCK, PORTS })) {
    for (const [mishap, failure] of Object.entries(MISHAPS)) {
      register(`${name}: rank 1 ${mishap}, and the others know at once`, async () => {
        await meet(mishap, options, failure);
      });
    }
  }
  register("spawnWorkers() takes an address, a path and a function", async () => {
    const task: Task = { name: foldInRankOrder.name, parameter: null };
    for (const module of [RANK, RANK.href, RANK.pathname, () => new Worker(RANK)]) {
      assert.equal((await spawnWorkers(module, 2, { parameter: task })).length, 2);
    }
  });
  register(
    "workers that cannot be loaded, or serve no rank, are errors that name them",
    async () => {
      const nowhere = new URL("./nowhere.js", import.meta.url);
      await assert.rejects(
        spawnWorkers(nowhere, 2),
        /The worker of rank \d failed before it served, as its module file:.*nowhere\.js could not be loaded or run: Cannot find/,
      );
      const idle = "data:text/javascript,setInterval(() => {}, 1000)";
      await assert.rejects(
        spawnWorkers(idle, 1, { startTimeoutMs: 300 }),
        /Cannot start rank 0 as its worker must call serveRank\(\)/,
      );
      await assert.rejects(
        spawnWorkers("data:text/javascript,0", 1),
        /Rank 0 closed its worker before its body had ended/,
      );
    },
  );
  register("serveRank() is refused where nobody has started a worker", () => {
    assert.throws(() => serveRank(() => 0), /must be called in a worker/);
  });
  register("MPI is unsupported, by an error that says so", () => {
    assert.throws(() => mpiGroup(), (error) => isMpiError(error, "unsupported"));
  });
}

function workers(name: string, options: SpawnOptions<Task>): GroupKit {
  return {
    name,
    ...(options.wait === "block" ? { blocks: true } : {}),
    costlyStart: 8,
    run: (worldSize, task, parameter, { timeoutMs } = {}) =>
      spawnWorkers(RANK, worldSize, {
        ...{ ...options, ...(timeoutMs ? { timeoutMs } : {}) },
        parameter: { name: task.body.name, parameter },
      }),
  };
}

/** What befalls rank 1, and what spawnWorkers() says of it. */
const MISHAPS = {
  throws: /^RangeError: out of data$/,
  throwsLater: /The worker of rank 1 failed: from a timer/,
  rejects: /The worker of rank 1 failed: nobody listens/,
  exits: /Rank 1 closed its worker before its body had ended/,
  hangs: /Rank 1 closed its worker before its body had ended/,
  ends: /"second", as rank 1 ended before it/,
};

async function meet(mishap: string, options: SpawnOptions<Task>, failure: RegExp): Promise<void> {
  const seen: Seen[] = [];
  const start = (): Worker => {
    const worker = new Worker(RANK);
    worker.on("message", (message) => {
      if (typeof message === "object") seen.push(message);
      if (message === "hangs") worker.terminate();
    });
    return worker;
  };
  const begun = performance.now();
  const parameter: Task = {
    name: "meetWithMishap",
    parameter: { mishap, blocks: options.wait === "block" },
  };
  await assert.rejects(
    spawnWorkers(start, 3, { ...options, parameter, timeoutMs: 30_000 }),
    failure,
  );
  assert(performance.now() - begun < 10_000, "long before the deadline");
  assert.deepEqual(seen, [{ code: "rankFailed", ranks: [1] }, { code: "rankFailed", ranks: [1] }]);
}
