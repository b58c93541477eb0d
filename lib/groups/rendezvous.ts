/**
 * Where the ranks of one process meet: matches the n-th call of every rank and settles all of them alike.
 *
 * @module
 */

import { CollectiveError } from "../errors.ts";
import { copyContribution, messageOf } from "./contributions.ts";

/** One rank's part in a call. */
export interface Request<T> {
  /** The kind of call and its label, for messages and agreement. */
  readonly name: string;
  /** What else must be equal on all ranks once the values are known. */
  readonly detail: (values: Float64Array) => string;
  /** What this rank contributes. */
  readonly values: Float64Array | Promise<Float64Array>;
  /** Gives up the call, and with it the meeting. */
  readonly signal?: AbortSignal;
  /** One result per rank from the contributions of all, in rank order; called once, on behalf of all. */
  readonly conclude: (values: readonly Float64Array[]) => readonly T[];
}

/** The meeting point of a fixed number of ranks. */
export interface Rendezvous {
  /** Brings one rank's part; takes its place in line at once, in the program order of that rank. */
  readonly meet: <T>(rank: number, request: Request<T>) => Promise<T>;
  /** Tells that a rank will not call again: it ended, or it failed with a cause. */
  readonly leave: (rank: number, failure?: { readonly cause: unknown }) => void;
}

interface Arrival {
  readonly name: string;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: CollectiveError) => void;
  values?: Float64Array;
  description?: string;
  failure?: { readonly cause: unknown };
}

interface Round {
  readonly call: number;
  readonly arrivals: Map<number, Arrival>;
  readonly cleanups: (() => void)[];
  readonly conclude: Request<unknown>["conclude"];
  ready: number;
}

/**
 * Makes a meeting point.
 *
 * @param worldSize number of ranks, numbered from 0
 * @param timeoutMs how long the first rank to arrive at a call waits for the others, in milliseconds; may be Infinity
 * @returns the meeting point, shared by all ranks
 */
export function createRendezvous(worldSize: number, timeoutMs: number): Rendezvous {
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  const calls = ranks.map(() => 0);
  const rounds = new Map<number, Round>();
  const ended = new Set<number>();
  let broken: CollectiveError | undefined;

  function close(round: Round): void {
    rounds.delete(round.call);
    round.cleanups.forEach((cleanup) => cleanup());
  }

  function refuse(round: Round, error: CollectiveError): void {
    close(round);
    for (const { reject } of round.arrivals.values()) reject(error);
  }

  function breakDown(error: CollectiveError): void {
    broken ??= error;
    for (const round of rounds.values()) refuse(round, broken);
  }

  function meet<T>(rank: number, wish: Request<T>): Promise<T> {
    const call = ++calls[rank];
    const request = checkSignal(wish);
    const { name, signal } = request;
    const absent = [...ended].filter((other) => calls[other] < call);
    if (!broken && absent.length > 0) breakDown(endedError(absent, call, name));
    if (!broken && signal?.aborted) breakDown(cancelledError(rank, call, name, signal));
    if (broken) {
      Promise.resolve(request.values).catch(() => {}); // Nobody will look at them any more.
      return Promise.reject(broken);
    }
    const round = rounds.get(call) ?? open(call, request);
    if (signal) {
      const cancel = () => breakDown(cancelledError(rank, call, name, signal));
      signal.addEventListener("abort", cancel, { once: true });
      round.cleanups.push(() => signal.removeEventListener("abort", cancel));
    }
    return new Promise<T>((resolve, reject) => {
      const arrival: Arrival = { name, resolve: resolve as (result: unknown) => void, reject };
      round.arrivals.set(rank, arrival);
      bring(round, arrival, request);
    });
  }

  function open(call: number, { conclude }: Request<unknown>): Round {
    const round: Round = { call, arrivals: new Map(), cleanups: [], conclude, ready: 0 };
    rounds.set(call, round);
    if (timeoutMs !== Infinity) {
      const timer = setTimeout(() => breakDown(deadlineError(round, ranks, timeoutMs)), timeoutMs);
      round.cleanups.push(() => clearTimeout(timer));
    }
    return round;
  }

  function bring(round: Round, arrival: Arrival, { values, name, detail }: Request<unknown>): void {
    const accept = (contribution: Float64Array) => {
      try {
        arrival.values = copyContribution(contribution, name);
        arrival.description = `${name} ${detail(arrival.values)}`;
      } catch (cause) {
        arrival.failure = { cause };
      }
      settle(round);
    };
    const fail = (cause: unknown) => {
      arrival.failure = { cause };
      settle(round);
    };
    // At once where it can be: the caller may write to its array after the call.
    if (values instanceof Float64Array) accept(values);
    else Promise.resolve(values).then(accept, fail);
  }

  function settle(round: Round): void {
    round.ready++;
    if (round.ready < worldSize || rounds.get(round.call) !== round) return;
    const arrivals = ranks.map((rank) => round.arrivals.get(rank)!);
    const failed = ranks.filter((rank) => arrivals[rank].failure);
    if (failed.length > 0) return refuse(round, failedError(failed, round.call, arrivals));
    if (arrivals.some(({ description }) => description !== arrivals[0].description)) {
      return refuse(round, disagreementError(ranks, round.call, arrivals));
    }
    let results: readonly unknown[];
    try {
      results = round.conclude(arrivals.map(({ values }) => values!));
    } catch (cause) {
      const message = `Cannot complete call ${round.call}, ${arrivals[0].description}, ` +
        `as combining failed: ${messageOf(cause)}`;
      return refuse(round, new CollectiveError(message, "rankFailed", ranks, { cause }));
    }
    close(round);
    for (const rank of ranks) arrivals[rank].resolve(results[rank]);
  }

  function leave(rank: number, failure?: { readonly cause: unknown }): void {
    ended.add(rank);
    if (failure) {
      const message =
        `Rank ${rank} of this group of ${worldSize} failed after ${calls[rank]} calls: ` +
        messageOf(failure.cause);
      return breakDown(new CollectiveError(message, "rankFailed", [rank], failure));
    }
    for (const { call, arrivals } of rounds.values()) {
      if (call <= calls[rank]) continue;
      const [waiting] = arrivals.values();
      return breakDown(endedError([rank], call, waiting.name));
    }
  }

  return Object.freeze({ meet, leave });
}

/** Makes a signal that is none this rank's failure, like any other wrong argument. */
function checkSignal<T>(request: Request<T>): Request<T> {
  const { signal, name, values } = request;
  if (signal === undefined || signal instanceof AbortSignal) return request;
  Promise.resolve(values).catch(() => {}); // The wrong signal's error comes first.
  const error = new TypeError(`Cannot call ${name} as its signal must be an AbortSignal`);
  return { ...request, signal: undefined, values: Promise.reject(error) };
}

function endedError(ranks: readonly number[], call: number, name: string): CollectiveError {
  return new CollectiveError(
    `Cannot complete call ${call}, ${name}, as ${list(ranks)} ended before it: ` +
      `every rank must make the same number of calls`,
    "rankFailed",
    ranks,
  );
}

function cancelledError(
  rank: number,
  call: number,
  name: string,
  signal: AbortSignal,
): CollectiveError {
  return new CollectiveError(
    `Cannot complete call ${call}, ${name}, as rank ${rank} cancelled it: ${
      messageOf(signal.reason)
    }`,
    "cancelled",
    [rank],
    { cause: signal.reason },
  );
}

function deadlineError(
  { call, arrivals }: Round,
  ranks: readonly number[],
  timeoutMs: number,
): CollectiveError {
  const missing = ranks.filter((rank) => !arrivals.has(rank));
  const failed = ranks.filter((rank) => arrivals.get(rank)?.failure);
  const unready = ranks.filter((rank) => {
    const arrival = arrivals.get(rank);
    return arrival && !arrival.values && !arrival.failure;
  });
  const reasons = [
    ...(missing.length > 0 ? [`${list(missing)} did not arrive`] : []),
    ...(unready.length > 0 ? [`the values of ${list(unready)} were not ready`] : []),
  ];
  const failures = failed.map((rank) =>
    `; rank ${rank} had failed: ${messageOf(arrivals.get(rank)?.failure?.cause)}`
  );
  const [{ name }] = arrivals.values();
  return new CollectiveError(
    `Cannot complete call ${call}, ${name}, as ${reasons.join(" and ")} ` +
      `within ${timeoutMs} ms${failures.join("")}`,
    "deadline",
    [...missing, ...unready].sort((a, b) => a - b),
    failed.length > 0 ? arrivals.get(failed[0])?.failure : undefined,
  );
}

function failedError(
  failed: readonly number[],
  call: number,
  arrivals: readonly Arrival[],
): CollectiveError {
  const causes = failed.map((rank) =>
    `rank ${rank} failed before call ${call}, ${arrivals[rank].name}: ${
      messageOf(arrivals[rank].failure?.cause)
    }`
  ).join("; ");
  const cause = arrivals[failed[0]].failure?.cause;
  return new CollectiveError(capitalize(causes), "rankFailed", failed, { cause });
}

function disagreementError(
  ranks: readonly number[],
  call: number,
  arrivals: readonly Arrival[],
): CollectiveError {
  const descriptions = new Set(arrivals.map(({ description }) => description));
  const doings = [...descriptions].map((description) => {
    const who = ranks.filter((rank) => arrivals[rank].description === description);
    return `${list(who)} called ${description}`;
  });
  return new CollectiveError(
    `Cannot complete call ${call} as the ranks disagree: ${doings.join("; ")}`,
    "disagreement",
    ranks,
  );
}

function list(ranks: readonly number[]): string {
  return `${ranks.length === 1 ? "rank" : "ranks"} ${ranks.join(", ")}`;
}

function capitalize(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}
