/** One rank's end of an MPI communicator: one call at a time, in program order, until the group breaks. */

import { deferred } from "../../deferred.ts";
import type { CollectiveError } from "../../errors.ts";
import type { Engine, Request } from "../engine.ts";
import { busyError, cancelledError, leftError } from "../failures.ts";
import { type Call, failedAlone, lateOf, presenceOf } from "./call.ts";
import { openChannel, type Steps } from "./channel.ts";
import { MpiError } from "./errors.ts";
import type { Library } from "./library.ts";
import { openMailbox, type Presence } from "./mailbox.ts";
import type { Memory } from "./memory.ts";
import type { Operations } from "./operations.ts";
import { partOf, resultOf } from "./parts.ts";
import type { Progress } from "./requests.ts";
import { createSettlement } from "./settlement.ts";
import { createCourse } from "./steps.ts";
import { createTerm } from "./term.ts";
import { divide } from "./communicators.ts";
import { createWaits } from "./waits.ts";

/** What all groups of a process share. */
export interface Session {
  readonly library: Library;
  readonly progress: Progress;
  readonly operations: Operations;
  readonly memory: Memory;
  readonly checked: boolean;
  /** How long a call may take, from when its turn has come, in ms. */
  readonly timeoutMs: number;
  /** All ends, kept until MPI ends: it may still write to the memory of a broken one. */
  readonly engines: MpiEngine[];
  /** Resolves when no group of this process is being split. */
  splitting: Promise<void>;
}

/** An end, as the session sees it. */
export interface MpiEngine extends Engine {
  /** Why the group cannot go on, or undefined where it can. */
  readonly broken: () => Error | undefined;
  readonly busy: () => boolean;
  /** Makes every later call reject with this error. */
  readonly end: (error: Error) => void;
}

/** How long a rank that does not know what went wrong leaves the word to others. */
const UNKNOWING_MS = 50;
/** After so long without a call there may be messages of a group that broke meanwhile. */
const IDLE_MS = 1;

/** Makes this rank's end of a communicator. */
export function createEngine(session: Session, comm: bigint): MpiEngine {
  const { library, progress, operations, memory, checked, timeoutMs } = session;
  const channel = openChannel(library, comm);
  const { rank, worldSize } = channel;
  const course = createCourse(channel, operations, memory, checked);
  const mailbox = openMailbox(library, comm, rank, worldSize);
  const settlement = createSettlement(
    rank,
    worldSize,
    mailbox,
    (present) => lateOf(current!, present, channel, timeoutMs),
  );
  const line: Call[] = [];
  /** Calls that were under way when the group broke: MPI may write to their memory for ever. */
  const lost: Call[] = [];
  let calls = 0;
  let broken: Error | undefined;
  /** The call whose turn it is, or was last. */
  let current: Call | undefined;
  const term = createTerm(timeoutMs);
  /** When the last call came to its end. */
  let left = term.now();
  /** Whether others may wait for this rank in a step that cannot be given up, and what to do after it. */
  let committed = false;
  /** Lets other groups of this process be split. */
  let splitDone: (() => void) | undefined;
  let postponed: (() => void) | undefined;
  let troubled = false;

  const { complete, completeNow, pauseNow, look } = createWaits(channel, progress, term, {
    broken: () => broken,
    isIdle: () => line.length === 0 && !settlement.begun(),
    isSettling: settlement.begun,
    patrol: (now) => guard(() => patrol(now, standing(now))),
    guard,
  });

  /** Takes a place in line; `conclude` belongs to it. */
  function enter<T>(
    request: Request,
    conclude: (result: readonly Float64Array[]) => T,
    binding: boolean,
  ): Promise<T> {
    const number = ++calls;
    const { values, signal, name } = request;
    if (broken) {
      Promise.resolve(values).catch(() => {}); // Nobody will look at them any more.
      return Promise.reject(broken);
    }
    const { promise, resolve, reject } = deferred<T>();
    const finish: Call["finish"] = (result) => resolve(conclude(result));
    const call: Call = { number, request, finish, reject, binding };
    // At once where it can be: the caller may write to its array after the call.
    if (values instanceof Float64Array) bring(call, () => values);
    else {
      const fail = (cause: unknown) => {
        call.failure = { cause };
        call.wake?.();
      };
      Promise.resolve(values).then((own) => bring(call, () => own), fail);
    }
    line.push(call);
    if (signal) {
      const cancel = () => giveUp(cancelledError(rank, number, name, signal.reason));
      signal.addEventListener("abort", cancel, { once: true });
      call.forget = () => signal.removeEventListener("abort", cancel);
      if (signal.aborted) cancel();
    }
    if (line[0] === call) begin(call);
    return promise;
  }

  /** This rank's values are there, or what keeps it from bringing any. */
  function bring(call: Call, own: () => Float64Array): void {
    try {
      call.part = partOf(call.request, own(), channel, memory);
    } catch (cause) {
      call.failure = { cause };
    }
    call.wake?.();
  }

  /** The turn of a call has come. */
  function begin(call: Call): void {
    open(call);
    if (!broken && !settlement.begun()) perform(call);
  }

  function open(call: Call): void {
    current = call;
    const began = term.begin();
    // A group that broke meanwhile takes no further call, though MPI might complete it.
    guard(() => {
      if (began - left > IDLE_MS) mailbox.catchUp();
      patrol(began, null);
    });
  }

  async function perform(call: Call): Promise<void> {
    try {
      if (!call.part && !call.failure) {
        progress.watch(look);
        await new Promise<void>((wake) => call.wake = wake);
      }
      if (call.binding) await splitTurn();
      if (broken || settlement.begun()) return; // The verdict rejects the call.
      const outcome = drive(route(call));
      const result = outcome instanceof Promise ? await outcome : outcome;
      if (!result) return;
      call.finish(result);
      leave(call);
    } catch (error) {
      if (!failCall(call, error)) return;
    }
    // Not at once: as many calls as stand in line would stand on the stack.
    queueMicrotask(() => {
      if (line.length > 0 && line[0] !== current) begin(line[0]);
    });
  }

  /** The way of a call whose values are there, to its result; or to none, where the group breaks with it. */
  function* route(call: Call): Steps<readonly Float64Array[] | undefined> {
    if (checked) yield* course.agree(call);
    if (settlement.begun()) return; // By a signal in between.
    if (!call.part) return void giveUp(failedAlone(call, rank, worldSize));
    committed = call.binding;
    yield* course.exchange(call, call.part);
    return resultOf(call.request.flow, call.part, worldSize);
  }

  /** Goes through steps; at once as far as it can be: a promise would put off the next step to another turn. */
  function drive<T>(steps: Steps<T>): T | Promise<T> {
    for (;;) {
      const { done, value } = steps.next();
      if (done) return value;
      const pending = complete(value);
      if (pending) return pending.then(() => drive(steps));
    }
  }

  /** A call that came to no result; says whether the group goes on with the next. */
  function failCall(call: Call, error: unknown): boolean {
    if (error instanceof MpiError) crash(call, error);
    else if (checked) {
      leave(call);
      call.reject(error);
      return true;
    } else {
      // Combining failed, and nobody asks why: the rank that knows shall be the first to say it.
      const failure = error as CollectiveError;
      if (failure.cause !== undefined) giveUp(failure);
      else setTimeout(() => giveUp(failure), UNKNOWING_MS);
    }
    return false;
  }

  /** A call that holds up the thread until it has its result. */
  function meetNow(request: Request, values: () => Float64Array): readonly Float64Array[] {
    if (session.engines.some(({ busy }) => busy())) throw busyError(request.name);
    const number = ++calls;
    if (broken) throw broken;
    let failure: { readonly cause: unknown } | undefined;
    const reject = (cause: unknown) => failure = { cause };
    const call: Call = { number, request, finish: () => {}, reject, binding: false };
    bring(call, values);
    line.push(call);
    open(call);
    try {
      if (!broken && !settlement.begun()) {
        const steps = route(call);
        for (let step = steps.next(); !failure; step = steps.next()) {
          if (step.done && !step.value) break;
          if (!step.done) {
            completeNow(step.value);
            continue;
          }
          leave(call);
          return step.value!;
        }
      }
    } catch (error) {
      failCall(call, error);
    }
    while (!failure) pauseNow();
    throw failure.cause;
  }

  function leave(call: Call): void {
    line.shift();
    left = term.now();
    call.forget?.();
    call.part?.lent.forEach(memory.give);
    committed = false;
    splitDone?.();
    postponed?.();
  }

  /** Waits until no other group of this process is being split: two at once would wait for each other for ever. */
  async function splitTurn(): Promise<void> {
    progress.watch(look);
    const before = session.splitting;
    const { promise, resolve } = deferred<void>();
    session.splitting = before.then(() => promise);
    splitDone = resolve;
    await before;
  }

  /** Looks for messages and at the clock. */
  function patrol(now: number, at: Presence | null): void {
    const verdict = settlement.patrol(now, at);
    if (verdict) return breakDown(verdict);
    if (term.isUp(now) && line.length > 0 && !committed && !settlement.begun()) {
      settlement.propose(undefined, now);
    }
    if (settlement.begun()) progress.watch(look);
  }

  function standing(now: number): Presence | null {
    return line.length > 0 ? presenceOf(line[0], term.waitedMs(now)) : null;
  }

  /** Breaks the group, in the words of whoever was first. */
  function giveUp(error: CollectiveError): void {
    if (committed) {
      postponed ??= () => giveUp(error);
      return;
    }
    guard(() => {
      const now = term.now();
      mailbox.catchUp();
      patrol(now, standing(now));
      if (!broken && !settlement.begun()) settlement.propose(error, now);
      progress.watch(look);
    });
  }

  /** An MPI function failed in this rank's part of a call. */
  function crash({ number }: Call, error: MpiError): void {
    committed = false;
    giveUp(leftError(rank, worldSize, number - 1, error.message, error));
  }

  /** An MPI function that fails breaks the group; where not even messages get through, here and now. */
  function guard(body: () => void): void {
    try {
      body();
    } catch (error) {
      if (troubled || !current || !(error instanceof MpiError)) return breakDown(error as Error);
      troubled = true;
      crash(current, error);
    }
  }

  function breakDown(error: Error): void {
    broken ??= error;
    splitDone?.();
    for (const call of line.splice(0)) {
      lost.push(call);
      call.forget?.();
      call.reject(broken);
    }
  }

  const engine: MpiEngine = {
    rank,
    worldSize,
    meet: (request) => enter(request, (result) => result, false),
    meetNow,
    split: (request) =>
      enter(request, (all) => createEngine(session, divide(library, comm, all, rank)), true),
    broken: () => broken,
    busy: () => line.length > 0,
    end: breakDown,
  };
  session.engines.push(engine);
  return engine;
}
