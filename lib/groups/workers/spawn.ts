/**
 * Workers that are started for a group and end with it.
 *
 * @module
 */

import type { ProcessGroup } from "../../collectives.ts";
import { CollectiveError } from "../../errors.ts";
import { checkTimeout, processGroup } from "../engine.ts";
import { fromPlain, messageOf, type PlainFailure, toPlain } from "../failures.ts";
import {
  type SeatOptions,
  takeSeat,
  transfers,
  type WorkerGroupOptions,
  type WorkerSeat,
  workerSeats,
} from "./seats.ts";

/** Options of {@linkcode spawnWorkers}. */
export interface SpawnOptions<P> extends SeatOptions, WorkerGroupOptions {
  /** What every rank's body is given besides its group; travels by structured clone. */
  readonly parameter?: P;
  /** How long workers may take to load their modules, in ms; Infinity for ever; 60,000 by default. */
  readonly startTimeoutMs?: number;
  /** Ends all workers. */
  readonly signal?: AbortSignal;
}

/** A worker to its maker. */
type FromRank =
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "failed"; readonly failure: Thrown }
  | { readonly kind: "closed" }
  /** The answer to any message. */
  | { readonly kind: "alive" };

/** What a body threw. */
interface Thrown {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  readonly plain?: PlainFailure;
}

/** How long a worker may be too busy to answer while none has ended, and how often it is asked at most. */
const BUSY_MS = 600_000;
const ASKING_MS = 1000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** The marks of the messages that start a rank, so that a worker's own messages are not mistaken for them. */
const READY = "syncbn: ready to serve a rank";
const START = "syncbn: start the rank";

interface Start {
  readonly mark: typeof START;
  readonly seat: WorkerSeat;
  readonly options: WorkerGroupOptions;
  readonly parameter: unknown;
  readonly port: MessagePort;
}

/** What a worker's global scope has, as far as it is needed here. */
interface Scope {
  postMessage(message: unknown): void;
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
  addEventListener(type: "unload", listener: () => void): void;
  removeEventListener(type: "message", listener: (event: MessageEvent) => void): void;
  close(): void;
}

/**
 * Starts one worker per rank, waits for all of them, and ends them.
 *
 * A rank that throws, cannot be loaded or closes its worker fails the pending and later collectives of all others at
 * once. After that the others have `timeoutMs` to come to an end; then their workers are ended. A worker that ends without
 * a word (terminated by somebody else) is noticed too: all are asked now and then whether they are alive, and have ten
 * minutes to answer, or `timeoutMs` once another has ended. No worker is left behind, those that a function of yours has
 * started included.
 *
 * @param worker the address of a module that calls {@linkcode serveRank}, or a function that starts a rank's worker
 * (bundlers want to see `new Worker(new URL(...))` as such)
 * @param worldSize number of ranks, >= 1
 * @param options what the bodies are given, deadline, transport, how to wait
 * @returns what the ranks returned, in rank order
 * @throws (rejects with) the error of the rank that failed first and of itself; its `cause` is what the worker told
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
  worker: string | URL | ((rank: number) => Worker),
  worldSize: number,
  options: SpawnOptions<P> = {},
): Promise<R[]> {
  const { signal, parameter, timeoutMs = 60_000, startTimeoutMs = 60_000, wait } = options;
  checkTimeout(startTimeoutMs, "startTimeoutMs");
  signal?.throwIfAborted();
  const world = workerSeats(worldSize, options);
  const start = typeof worker === "function"
    ? worker
    : () => new Worker(worker, { type: "module" });
  const running: Running[] = [];
  const failures: Failure[] = [];
  let stop: (failure: Failure) => void = () => {};
  const stopped = new Promise<Failure>((resolve) => stop = resolve);
  const abort = () => stop({ rank: -1, error: signal?.reason });
  signal?.addEventListener("abort", abort, { once: true });
  let patience: ReturnType<typeof setTimeout> | undefined;

  const fail = (rank: number, error: unknown): void => {
    failures.push({ rank, error });
    world.leave(rank, { cause: error });
    if (timeoutMs === Infinity) return;
    const longest = Math.min(timeoutMs + 1000, LONGEST_TIMER_MS);
    patience ??= setTimeout(() => stop(firstOf(failures)), longest);
  };
  try {
    for (const seat of world.seats) {
      const message: Omit<Start, "port"> = { mark: START, seat, options: { wait }, parameter };
      const worker = start(seat.rank);
      running.push(run(worker, message, startTimeoutMs, (error) => fail(seat.rank, error)));
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
    clearTimeout(patience);
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
  worker: Worker,
  message: Omit<Start, "port">,
  startTimeoutMs: number,
  fail: (error: unknown) => void,
): Running {
  const { rank, timeoutMs } = message.seat;
  worker.addEventListener("messageerror", () => {
    refuse(new Error(`The worker of rank ${rank} sent what cannot be read`));
  });
  const { port1, port2 } = new MessageChannel();
  const { promise: ended, resolve } = Promise.withResolvers<unknown>();
  const { promise: ready, resolve: isReady } = Promise.withResolvers<void>();
  let over = false;
  let starting: ReturnType<typeof setTimeout> | undefined;
  let asking: ReturnType<typeof setInterval> | undefined;
  const conclude = (result: unknown): void => {
    over = true;
    clearTimeout(starting);
    clearInterval(asking);
    isReady();
    resolve(result);
  };
  const refuse = (error: unknown): void => {
    if (over) return;
    fail(error);
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
    refuse(
      new Error(
        `The worker of rank ${rank} ended without a word, or was busy for ${patienceMs} ms`,
      ),
    );
  };
  const expect = (): void => {
    if (patienceMs !== timeoutMs) unanswered = 0;
    patienceMs = timeoutMs;
  };
  port1.onmessage = ({ data }: MessageEvent<FromRank>) => {
    unanswered = 0;
    if (data.kind === "done" && !over) conclude(data.result);
    else if (data.kind === "failed") refuse(revive(data.failure));
    else if (data.kind === "closed") {
      refuse(new Error(`Rank ${rank} closed its worker before its body had ended`));
    }
  };
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    refuse(new Error(`The worker of rank ${rank} failed: ${event.message}`));
  });
  worker.addEventListener("message", (event: MessageEvent) => {
    if (event.data !== READY) return;
    clearTimeout(starting);
    isReady();
  });
  if (startTimeoutMs !== Infinity) {
    starting = setTimeout(() =>
      refuse(
        new Error(
          `Cannot start rank ${rank} as its worker must call serveRank(): ` +
            `it did not within ${startTimeoutMs} ms`,
        ),
      ), startTimeoutMs);
  }
  const begin = (): void => {
    if (over) return;
    try {
      worker.postMessage({ ...message, port: port2 }, [port2, ...transfers(message.seat)]);
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
    !(error instanceof CollectiveError && error.code === "rankFailed" &&
      !error.ranks.includes(rank))
  );
  return own ?? failures[0];
}

/**
 * Serves a rank: to be called once, at the top level of the module that {@linkcode spawnWorkers} was given.
 *
 * @param body what the rank does, with its handle on the group and the `parameter`; what it returns travels back by
 * structured clone
 *
 * @example
 * ```ts ignore
 * import { serveRank } from "@syncbn/syncbn/workers";
 *
 * serveRank(({ rank, worldSize }, greeting: string) => `${greeting} from ${rank} of ${worldSize}`);
 * ```
 */
export function serveRank<P, R>(
  body: (group: ProcessGroup, parameter: P) => Promise<R> | R,
): void {
  const scope = globalThis as unknown as Scope;
  const listen = ({ data }: MessageEvent<Start>): void => {
    if (data?.mark !== START) return;
    scope.removeEventListener("message", listen);
    serve(scope, data, body);
  };
  scope.addEventListener("message", listen);
  scope.postMessage(READY);
}

async function serve<P, R>(
  scope: Scope,
  { seat, options, parameter, port }: Start,
  body: (group: ProcessGroup, parameter: P) => Promise<R> | R,
): Promise<void> {
  const send = (message: FromRank) => port.postMessage(message);
  const close = scope.close.bind(scope);
  let taken: ReturnType<typeof takeSeat> | undefined;
  const closing = () => {
    send({ kind: "closed" });
    taken?.leave();
  };
  scope.close = () => {
    closing();
    close();
  };
  scope.addEventListener("unload", closing); // Deno.exit() says so by this.
  port.onmessage = () => send({ kind: "alive" });
  try {
    taken = takeSeat(seat, options);
    const result = await body(processGroup(taken.engine), parameter as P);
    taken.leave();
    send({ kind: "done", result });
  } catch (cause) {
    send({ kind: "failed", failure: thrown(cause) });
    taken?.leave({ cause });
  }
}

function thrown(error: unknown): Thrown {
  if (!(error instanceof Error)) return { name: "Error", message: messageOf(error) };
  const { name, message, stack } = error;
  const plain = error instanceof CollectiveError ? toPlain(error) : undefined;
  return { name, message, stack, plain };
}

function revive({ name, message, stack, plain }: Thrown): Error {
  const error = plain ? fromPlain(plain) : new Error(message);
  if (!plain) Object.defineProperty(error, "name", { value: name, configurable: true });
  if (stack) error.stack = stack;
  return error;
}
