/**
 * The module of a worker that is one replica, or the one process that the replicas are held against.
 *
 * A replica trains as many networks as its group has runs, a step of each in turn, so that their curves grow together.
 *
 * @module
 */

import { serveRank } from "../../../lib/groups/workers.ts";
import type { ProcessGroup } from "../../../mod.ts";
import { share } from "../../batches.ts";
import { openPlace } from "../../devices.ts";
import type { Layers } from "../../layers.ts";
import { examine, observe, pick } from "../../network.ts";
import {
  type Classroom,
  discard,
  firstReplica,
  type Replica,
  sharingOf,
  type Stored,
  takeStep,
  type Task,
  withStored,
} from "../../train.ts";
import { HEARD, type Order, type RunName, RUNS, type Told } from "./messages.ts";

const scope = globalThis as unknown as EventTarget & {
  readonly postMessage: (told: Told) => void;
};

serveRank(async (group, order: Order) => {
  const place = await openPlace(order.device);
  if (place === null) {
    throw new Error("WebGPU must find an adapter: there is none. Choose another device");
  }
  try {
    scope.postMessage({ kind: "opened", device: place.title });
    await place.onLayers((layers) =>
      withStored(layers, order.digits, (stored) => trainInTurn(layers, stored, group, order))
    );
    await heard();
  } finally {
    await place[Symbol.asyncDispose]();
  }
});

/** Waits until the page has heard all. */
function heard(): Promise<void> {
  return new Promise((resolve) => {
    scope.addEventListener("message", (event) => {
      if ((event as MessageEvent<unknown>).data === HEARD) resolve();
    });
    scope.postMessage({ kind: "finished" });
  });
}

/** A run on its way. */
interface Running<V, A> {
  readonly name: RunName;
  readonly task: Task;
  readonly classroom: Classroom<V, A>;
  readonly collectiveMs: () => number;
  replica: Replica<V, A>;
}

async function trainInTurn<V, A>(
  layers: Layers<V, A>,
  stored: Stored<V>,
  group: ProcessGroup,
  { tasks, looks }: Order,
): Promise<void> {
  const runs: Running<V, A>[] = [];
  for (const name of RUNS) {
    const task = tasks[name];
    if (task === undefined) continue;
    const { timed, spentMs: collectiveMs } = timing(group);
    const sharing = task.norm === "local" ? await sharingOf(task.norm, group) : timed;
    const classroom = { layers, training: stored.training, group: timed, sharing };
    runs.push({ name, task, classroom, collectiveMs, replica: firstReplica(task, layers) });
  }
  const lookAt = async (step: number): Promise<void> => {
    const run = runs.find(({ name }) => name === "sync");
    if (!run || !looks?.steps.has(step)) return;
    const own = share(looks.images, group.rank, run.task.perReplica);
    const features = await layers.region(async (inner) => {
      const images = pick(stored.training, own, inner);
      return await observe(run.replica, images, inner, run.classroom.sharing);
    });
    scope.postMessage({ kind: "looked", step, rank: group.rank, features });
  };
  const steps = Math.max(...runs.map(({ task }) => task.batches.length));
  await group.barrier({ label: "start" });
  for (let index = 0; index < steps; index++) {
    for (const run of runs) await takeTurn(run, index, stored, group.rank === 0);
    await lookAt(index + 1);
  }
  for (const { replica } of runs) discard(replica, layers);
}

/** Takes a step of one run; the first replica tells of it. */
async function takeTurn<V, A>(
  run: Running<V, A>,
  index: number,
  { test }: Stored<V>,
  tells: boolean,
): Promise<void> {
  const { name, task, classroom, collectiveMs } = run;
  const { layers } = classroom;
  const [began, before] = [performance.now(), collectiveMs()];
  run.replica = await takeStep(run.replica, index, task, classroom);
  if (!tells) return;
  const step = index + 1;
  const [ms, spent] = [performance.now() - began, collectiveMs() - before];
  const isExam = task.exams.has(step);
  const exam = isExam && {
    step,
    ...await layers.region((inner) => examine(run.replica, test, inner)),
  };
  const parameters = (isExam || task.snapshots.has(step)) &&
    (await layers.read(run.replica.parameters))[0];
  scope.postMessage({
    ...{ kind: "stepped", run: name, step, ms, collectiveMs: spent },
    ...(exam && { exam }),
    ...(parameters && { parameters }),
  });
}

/** A group that knows how long this rank has spent in its all-reduces, readbacks that they wait for included. */
function timing(
  group: ProcessGroup,
): { readonly timed: ProcessGroup; readonly spentMs: () => number } {
  let spent = 0;
  const allReduce: ProcessGroup["allReduce"] = async (...call) => {
    const began = performance.now();
    try {
      return await group.allReduce(...call);
    } finally {
      spent += performance.now() - began;
    }
  };
  return { timed: { ...group, allReduce }, spentMs: () => spent };
}
