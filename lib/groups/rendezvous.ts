/** Where the ranks of one process meet: matches the n-th call of every rank and settles all of them alike. */

import type { CollectiveError } from "../errors.ts";
import { alarmIn } from "../patience.ts";
import { conclude, copyContribution } from "./contributions.ts";
import type { Request } from "./engine.ts";
import {
  cancelledError,
  combineError,
  deadlineError,
  endedError,
  judge,
  leftError,
  messageOf,
} from "./failures.ts";
import type { LocalFlow } from "./flow.ts";
import { countTurns, shortTurn, type Turns } from "./turns.ts";

/** The meeting point of a fixed number of ranks. */
export interface Rendezvous {
  /** Brings one rank's part; takes its place in line at once, in the program order of that rank. */
  readonly meet: (rank: number, request: LocalRequest) => Promise<readonly Float64Array[]>;
  readonly breakDown: (error: CollectiveError) => void;
  /** Why the group is broken, where it is. */
  readonly broken: () => CollectiveError | undefined;
  /** What breaks down with this group: is told while somebody waits there. */
  readonly within: Set<(error: CollectiveError) => void>;
}

/** One rank's part in a call in this thread. */
export interface LocalRequest extends Omit<Request, "flow"> {
  readonly flow: LocalFlow;
}

/** A group within another: for what belongs to one of its calls. They break together. */
export interface Within {
  readonly outer: Pick<Rendezvous, "breakDown" | "broken" | "within">;
  /** Its number, which all that happens here goes by. */
  readonly call: number;
}

/** What a rank failed with that will not call again; undefined where it just ended. */
export type Leaving = { readonly cause: unknown } | undefined;

/** Who of a world has left; it knows no meeting points but those where somebody waits, so that others can be collected. */
export interface Roll {
  /** Tells that a rank of the world will not call again, in none of its groups. */
  readonly leave: (rank: number, failure?: Leaving) => void;
  /** Those who have left, first the first. */
  readonly gone: ReadonlyMap<number, Leaving>;
  /** Gives their thread turns: ranks that share one and never wait for anything else would have it to themselves. */
  readonly turns: Turns;
  /** Is told of those who leave from now on, until it lets go. */
  readonly waiting: Set<(rank: number, failure: Leaving) => void>;
}

/**
 * How long ranks may have their thread to themselves, in ms: with what a rank computes between two calls, far below the 50 ms
 * that are felt. A turn takes 0.31 ms beside computing in Chromium, 0.26 in Firefox: 1.7 % of the time.
 */
const LONGEST_MS = 18;

/** Makes the roll of a world. */
export function createRoll(): Roll {
  const gone = new Map<number, Leaving>();
  const waiting: Roll["waiting"] = new Set();
  return {
    gone,
    waiting,
    turns: countTurns(LONGEST_MS, shortTurn),
    leave: (rank, failure) => {
      if (gone.has(rank)) return;
      gone.set(rank, failure);
      for (const tell of [...waiting]) tell(rank, failure);
    },
  };
}

interface Arrival {
  readonly name: string;
  readonly resolve: (result: readonly Float64Array[]) => void;
  readonly reject: (error: CollectiveError) => void;
  values?: Float64Array;
  description?: string;
  failure?: { readonly cause: unknown };
}

interface Round {
  readonly call: number;
  readonly arrivals: Map<number, Arrival>;
  readonly cleanups: (() => void)[];
  readonly flow: LocalFlow;
  ready: number;
}

/** Makes a meeting point. */
export function createRendezvous(
  members: readonly number[],
  roll: Roll,
  timeoutMs: number,
  inside?: Within,
): Rendezvous {
  const worldSize = members.length;
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  const calls = ranks.map(() => 0);
  const rounds = new Map<number, Round>();
  const ended = new Set<number>();
  const within: Rendezvous["within"] = new Set();
  let broken: CollectiveError | undefined;
  const tell = (inWorld: number, failure: Leaving): void => {
    const rank = members.indexOf(inWorld);
    if (rank >= 0 && !ended.has(rank)) leave(rank, failure);
  };

  function close(round: Round): void {
    rounds.delete(round.call);
    if (rounds.size === 0) {
      roll.waiting.delete(tell);
      inside?.outer.within.delete(breakDown);
    }
    round.cleanups.forEach((cleanup) => cleanup());
  }

  function refuse(round: Round, error: CollectiveError): void {
    close(round);
    for (const { reject } of round.arrivals.values()) reject(error);
  }

  function breakDown(error: CollectiveError): void {
    if (broken) return;
    broken = error;
    for (const round of [...rounds.values()]) refuse(round, broken);
    for (const tell of [...within]) tell(broken);
    inside?.outer.breakDown(broken);
  }

  function meet(rank: number, request: LocalRequest): Promise<readonly Float64Array[]> {
    const call = ++calls[rank];
    const { name, signal } = request;
    broken ??= inside?.outer.broken();
    for (const [inWorld, failure] of roll.gone) tell(inWorld, failure);
    const absent = [...ended].filter((other) => calls[other] < call);
    if (!broken && absent.length > 0) breakDown(endedError(absent, shown(call), name));
    if (!broken && signal?.aborted) {
      breakDown(cancelledError(rank, shown(call), name, signal.reason));
    }
    if (broken) {
      Promise.resolve(request.values).catch(() => {}); // Nobody will look at them any more.
      return Promise.reject(broken);
    }
    const round = rounds.get(call) ?? open(call, request);
    if (signal) {
      const cancel = () => breakDown(cancelledError(rank, shown(call), name, signal.reason));
      signal.addEventListener("abort", cancel, { once: true });
      round.cleanups.push(() => signal.removeEventListener("abort", cancel));
    }
    return new Promise((resolve, reject) => {
      const arrival: Arrival = { name, resolve, reject };
      round.arrivals.set(rank, arrival);
      bring(round, arrival, request);
    });
  }

  /** The number of a call in messages. */
  function shown(call: number): number {
    return inside?.call ?? call;
  }

  function open(call: number, { flow }: LocalRequest): Round {
    const round: Round = { call, arrivals: new Map(), cleanups: [], flow, ready: 0 };
    rounds.set(call, round);
    roll.waiting.add(tell);
    inside?.outer.within.add(breakDown);
    round.cleanups.push(alarmIn(timeoutMs, () => breakDown(late(round))));
    return round;
  }

  function bring(round: Round, arrival: Arrival, { values, name, detail }: LocalRequest): void {
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
    const error = judge(
      shown(round.call),
      arrivals.map(({ name, failure, description = "" }) => ({
        failed: failure !== undefined,
        text: failure ? `${name}: ${messageOf(failure.cause)}` : description,
      })),
      arrivals.find(({ failure }) => failure)?.failure?.cause,
    );
    if (error) return refuse(round, error);
    let hand: (rank: number) => readonly Float64Array[];
    try {
      hand = conclude(round.flow, arrivals.map(({ values }) => values!));
    } catch (cause) {
      const [{ description = "" }] = arrivals;
      return refuse(
        round,
        combineError(shown(round.call), description, worldSize, messageOf(cause), cause),
      );
    }
    close(round);
    const handOut = () => arrivals.forEach(({ resolve }, rank) => resolve(hand(rank)));
    const turn = roll.turns.due();
    if (turn) turn.then(handOut);
    else handOut();
  }

  function late({ call, arrivals }: Round): CollectiveError {
    const [{ name }] = arrivals.values();
    const failed = ranks.flatMap((rank) => {
      const failure = arrivals.get(rank)?.failure;
      return failure ? [{ rank, message: messageOf(failure.cause), cause: failure.cause }] : [];
    });
    return deadlineError({
      call: shown(call),
      name,
      timeoutMs,
      missing: ranks.filter((rank) => !arrivals.has(rank)),
      unready: ranks.filter((rank) => {
        const arrival = arrivals.get(rank);
        return arrival && !arrival.values && !arrival.failure;
      }),
      failed,
      cause: failed[0]?.cause,
    });
  }

  function leave(rank: number, failure: Leaving): void {
    ended.add(rank);
    if (failure) {
      const { cause } = failure;
      return breakDown(
        leftError(rank, worldSize, inside ? inside.call : calls[rank], messageOf(cause), cause),
      );
    }
    for (const { call, arrivals } of rounds.values()) {
      if (call <= calls[rank]) continue;
      const [waiting] = arrivals.values();
      return breakDown(endedError([rank], shown(call), waiting.name));
    }
  }

  return Object.freeze({ meet, breakDown, broken: () => broken, within });
}
