/** A worker of Node that serves any task of the suites, or one of the mishaps below: the worker's half of ./program.ts. */

import process from "node:process";
import { parentPort } from "node:worker_threads";
import { serveRank } from "../../lib/groups/workers.ts";
import { type CollectiveError, type ProcessGroup, sum } from "../../mod.ts";
import * as blocking from "../suites/blocking.ts";
import * as groups from "../suites/groups.ts";
import { lawOnReference, manyLawsOnReference } from "../suites/law.ts";

/** Which body, by its name, and what it is given. */
export interface Task {
  readonly name: string;
  readonly parameter: unknown;
}

type Body = (group: ProcessGroup, parameter: unknown) => unknown;

const one = Float64Array.of(1);
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** What befalls rank 1 while the others wait for it, each in the way that they were told to. */
const mishaps: Record<string, () => unknown> = {
  throws: () => {
    throw new RangeError("out of data");
  },
  throwsLater: () => {
    setTimeout(() => {
      throw new Error("from a timer");
    });
    return new Promise(() => {});
  },
  rejects: () => {
    Promise.reject(new Error("nobody listens"));
    return new Promise(() => {});
  },
  exits: () => process.exit(0),
  hangs: () => {
    parentPort!.postMessage("hangs");
    for (;;);
  },
  ends: () => {},
};

/** What another rank saw of it, told to whoever started its worker. */
export interface Seen {
  readonly code: string;
  readonly ranks: readonly number[];
}

/** Rank 1 has a mishap after a call that all make; the others tell what they saw. */
async function meetWithMishap(
  group: ProcessGroup,
  { mishap, blocks }: { readonly mishap: string; readonly blocks: boolean },
): Promise<unknown> {
  const call = (label: string) =>
    blocks ? group.allReduceBlocking(one, sum, { label }) : group.allReduce(one, sum, { label });
  await call("first");
  await pause(20);
  if (group.rank === 1) return await mishaps[mishap]();
  try {
    return await call("second");
  } catch (error) {
    const { code, ranks } = error as CollectiveError;
    parentPort!.postMessage({ code, ranks } satisfies Seen);
    throw error;
  }
}

/**
 * By the names that the bundler left them, which are those that the program knows. Of the law the bodies alone: what draws its
 * scenarios takes a thread as long to load as all the rest.
 */
const bodies = new Map(
  [groups, blocking, { lawOnReference, manyLawsOnReference, meetWithMishap }]
    .flatMap((module) => Object.values<unknown>(module))
    .filter((body) => typeof body === "function")
    .map((body) => [body.name, body as Body]),
);

serveRank((group, { name, parameter }: Task) => bodies.get(name)!(group, parameter));
