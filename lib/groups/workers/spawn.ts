/**
 * Workers that are started for a group and end with it.
 *
 * A worker that is terminated by somebody else says nothing, in Deno not even by an event. Its group learns of it at
 * the deadline; here those that are left are asked whether they live.
 */

import { deferred } from "../../deferred.ts";
import { isCollectiveError } from "../../errors.ts";
import { alarmIn } from "../../patience.ts";
import { checkTimeout } from "../engine.ts";
import { fromPlain } from "../failures.ts";
import { follow, post, type RankWorker, startWorker } from "./platform.ts";
import { type SeatOptions, transfers, type WorkerGroupOptions, workerSeats } from "./seats.ts";
import { type FromRank, READY, START, type Start, type Thrown } from "./serve.ts";

/** Options of {@linkcode spawnWorkers}. */
export interface SpawnOptions<P> extends SeatOptions, WorkerGroupOptions {
  /** What every rank's body is given besides its group; travels by structured clone. */
  readonly parameter?: P;
  /** How long workers may take to load their modules, in ms; Infinity for ever; 60,000 by default. */
  readonly startTimeoutMs?: number;
  /** Ends all workers. */
  readonly signal?: AbortSignal;
}

/** How long a worker may be too busy to answer while none has ended, and how often it is asked at most. */
const BUSY_MS = 600_000;
const ASKING_MS = 1000;

/**
 * Starts one worker per rank, waits for all of them, and ends them.
 *
 * A rank that throws, cannot be loaded or closes its worker fails the pending and later collectives of all others at
 * once. After that the others have `timeoutMs` to come to an end; then their workers are ended. A worker that ends without
 * a word (terminated by somebody else) is noticed too: all are asked now and then whether they are alive, and have ten
 * minutes to answer, or `timeoutMs` once another has ended. No worker is left behind, those that a function of yours has
 * started included.
 *
 * @param worker the address of a module that calls `serveRank`, or a function that starts a rank's worker
 * (bundlers want to see `new Worker(new URL(...))` as such)
 * @param worldSize number of ranks, >= 1
 * @param options what the bodies are given, deadline, transport, how to wait
 * @returns what the ranks returned, in rank order
 * @throws (rejects with) the error of the first rank that failed of itself, made again from its name, message and stack;
 * the signal's reason; RangeError and TypeError for impossible options
 *
 * @example rank.ts serves, main.ts spawns
 * ```ts ignore
 * // rank.ts
 * import { serveRank } from "@syncbn/syncbn/workers";
 * import { sum } from "@syncbn/syncbn";
 *
 * serveRank(async ({ rank, allReduce }, scale: number) => {
 *   const [total] = await allReduce(Float64Array.of(scale * rank), sum);
 *   return total;
 * });
 *
 * // main.ts
 * import { spawnWorkers } from "@syncbn/syncbn/workers";
 *
 * const totals = await spawnWorkers(new URL("./rank.ts", import.meta.url), 3, { parameter: 10 });
 * console.assert(totals.every((total) => total === 30));
 * ```
 */
export async function spawnWorkers<P, R>(
  worker: string | URL | ((rank: number) => RankWorker),
  worldSize: number,
  options: SpawnOptions<P> = {},
): Promise<R[]> {
  const { signal, parameter, timeoutMs = 60_000, startTimeoutMs = 60_000, wait } = options;
  checkTimeout(startTimeoutMs, "startTimeoutMs");
  signal?.throwIfAborted();
  const world = workerSeats(worldSize, options);
  const start = typeof worker === "function" ? worker : () => startWorker(worker);
  const module = typeof worker === "function" ? "its module" : `its module ${shortened(worker)}`;
  const running: Running[] = [];
  const failures: Failure[] = [];
  let stop: (failure: Failure) => void = () => {};
  const stopped = new Promise<Failure>((resolve) => stop = resolve);
  const abort = () => stop({ rank: -1, error: signal?.reason });
  signal?.addEventListener("abort", abort, { once: true });
  let hurry = () => {};
  let hurried = false;

  const fail = (rank: number, error: unknown): void => {
    failures.push({ rank, error });
    world.leave(rank, { cause: error });
    if (!hurried) hurry = alarmIn(timeoutMs + 1000, () => stop(firstOf(failures)));
    hurried = true;
  };
  try {
    for (const seat of world.seats) {
      const message: Omit<Start, "port"> = { mark: START, seat, options: { wait }, parameter };
      const worker = start(seat.rank);
      running.push(run(worker, message, startTimeoutMs, module, (error) => fail(seat.rank, error)));
    }
    // Together, so that none waits for another that is still loading.
    await Promise.race([Promise.all(running.map(({ ready }) => ready)), stopped]);
    for (const { begin } of running) begin();
    for (const { ended } of running) ended.then(() => running.forEach(({ expect }) => expect()));
    const ended = Promise.all(running.map(({ ended }) => ended));
    const results = await Promise.race([ended, stopped]);
    if (!Array.isArray(results)) throw results.error;
    if (failures.length > 0) throw firstOf(failures).error;
    return results as R[];
  } finally {
    hurry();
    signal?.removeEventListener("abort", abort);
    for (const { end } of running) end();
    world.close();
  }
}

interface Failure {
  readonly rank: number;
  readonly error: unknown;
}

interface Running {
  /** Resolves once the worker can begin, or never will. */
  readonly ready: Promise<void>;
  readonly begin: () => void;
  /** Resolves to what the body returned, or to nothing once it has failed. */
  readonly ended: Promise<unknown>;
  /** From now on the worker has less time to show that it is alive. */
  readonly expect: () => void;
  readonly end: () => void;
}

/** Starts a rank in its worker and follows it. */
function run(
  worker: RankWorker,
  message: Omit<Start, "port">,
  startTimeoutMs: number,
  module: string,
  fail: (error: unknown) => void,
): Running {
  const { rank, timeoutMs } = message.seat;
  const { port1, port2 } = new MessageChannel();
  const { promise: ended, resolve } = deferred<unknown>();
  const { promise: ready, resolve: isReady } = deferred<void>();
  let over = false;
  let serves = false;
  let started = () => {};
  let asking: ReturnType<typeof setInterval> | undefined;
  const conclude = (result: unknown): void => {
    over = true;
    started();
    clearInterval(asking);
    isReady();
    resolve(result);
  };
  /** By what the rank threw, or a sentence of ours. */
  const refuse = (error: unknown): void => {
    if (over) return;
    fail(typeof error === "string" ? new Error(error) : error);
    conclude(undefined);
  };

  // Questions that were asked while this thread had time to hear the answers: a clock would also count its own absence.
  const askingMs = Math.min(ASKING_MS, timeoutMs / 4);
  let unanswered = 0;
  let patienceMs = Math.max(BUSY_MS, timeoutMs);
  const ask = (): void => {
    if (unanswered * askingMs <= patienceMs) {
      unanswered++;
      return port1.postMessage(null);
    }
    refuse(`The worker of rank ${rank} ended without a word, or was busy for ${patienceMs} ms`);
  };
  const expect = (): void => {
    if (patienceMs !== timeoutMs) unanswered = 0;
    patienceMs = timeoutMs;
  };
  const closed = () => refuse(`Rank ${rank} closed its worker before its body had ended`);
  port1.onmessage = ({ data }: MessageEvent<FromRank>) => {
    unanswered = 0;
    if (data.kind === "done" && !over) conclude(data.result);
    else if (data.kind === "failed") refuse(revive(data.failure));
    else if (data.kind === "stray") {
      refuse(`The worker of rank ${rank} failed: Unhandled rejection: ${data.reason}`);
    } else if (data.kind === "closed") closed();
  };
  follow(worker, {
    heard: (message) => {
      if (message !== READY) return;
      serves = true;
      started();
      isReady();
    },
    garbled: () => refuse(`The worker of rank ${rank} sent what cannot be read`),
    failed: (text) => {
      const before = serves ? "" : ` before it served, as ${module} could not be loaded or run`;
      refuse(`The worker of rank ${rank} failed${before}${text && `: ${text}`}`);
    },
    ended: closed,
  });
  started = alarmIn(startTimeoutMs, () =>
    refuse(
      `Cannot start rank ${rank} as its worker must call serveRank(): ` +
        `${module} did not within ${startTimeoutMs} ms`,
    ));
  const begin = (): void => {
    if (over) return;
    try {
      post(worker, { ...message, port: port2 }, [port2, ...transfers(message.seat)]);
      if (timeoutMs !== Infinity) asking = setInterval(ask, askingMs);
    } catch (error) {
      refuse(error); // A parameter that cannot be cloned.
    }
  };
  return {
    ready,
    begin,
    ended,
    expect,
    end: () => {
      conclude(undefined);
      port1.close();
      port2.close(); // In case it was never sent.
      worker.terminate();
    },
  };
}

/** The rank that failed of itself, not because another one did. */
function firstOf(failures: readonly Failure[]): Failure {
  const own = failures.find(({ rank, error }) =>
    !(isCollectiveError(error, "rankFailed") && !error.ranks.includes(rank))
  );
  return own ?? failures[0];
}

/** An address in a message: of data and blobs the beginning. */
function shortened(address: string | URL): string {
  const text = String(address);
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}

function revive({ name, message, stack, plain }: Thrown): Error {
  const error = plain ? fromPlain(plain) : new Error(message);
  if (!plain) Object.defineProperty(error, "name", { value: name, configurable: true });
  if (stack) error.stack = stack;
  return error;
}
