/**
 * The engine over message ports, for threads that may not share memory: one thread keeps an in-process group and makes
 * every rank's calls in its place.
 *
 * @module
 */

import { conclude, copyContribution } from "../contributions.ts";
import type { Engine, Flow, Request } from "../engine.ts";
import { combineError, fromPlain, messageOf, type PlainFailure, toPlain } from "../failures.ts";
import { createWorld, type InProcessOptions } from "../in_process.ts";
import { CollectiveError } from "../../errors.ts";

/** A rank to its hub; `id` numbers the rank's calls in all its groups. */
type ToHub =
  | {
    readonly kind: "call" | "split";
    readonly id: number;
    readonly group: number;
    readonly name: string;
    /** How the values travel: what a rank folds is gathered. */
    readonly flow: Exclude<Flow, { readonly kind: "reduce" }>;
  }
  | {
    readonly kind: "values";
    readonly id: number;
    readonly values: Float64Array;
    readonly detail: string;
  }
  | { readonly kind: "failure" | "cancel"; readonly id: number; readonly reason: string }
  | { readonly kind: "leave"; readonly failure: string | null };

/** What came of a call. */
type ToRank =
  | { readonly kind: "values"; readonly id: number; readonly values: readonly Float64Array[] }
  | {
    readonly kind: "group";
    readonly id: number;
    readonly group: number;
    readonly rank: number;
    readonly worldSize: number;
  }
  | { readonly kind: "failure"; readonly id: number; readonly failure: PlainFailure }
  /** The hub will answer nothing any more. */
  | { readonly kind: "closed" };

/** The thread that all ranks' ports lead to. */
export interface Hub {
  /** One port per rank, to be transferred to it. */
  readonly ports: readonly MessagePort[];
  /** Tells that a rank will make no further call. */
  readonly leave: (rank: number, failure?: { readonly cause: unknown }) => void;
  /** Closes all ports. */
  readonly close: () => void;
}

/**
 * Opens the hub of a world.
 *
 * @param worldSize number of ranks, >= 1
 * @param options the deadline
 * @returns the hub
 * @throws RangeError for an impossible number of ranks or deadline
 */
export function openHub(worldSize: number, options: InProcessOptions): Hub {
  const world = createWorld(worldSize, options);
  const channels = world.engines.map((engine) => {
    const channel = new MessageChannel();
    serve(channel.port1, engine, (failure) => world.leave(engine.rank, failure));
    return channel;
  });
  return {
    ports: channels.map(({ port2 }) => port2),
    leave: world.leave,
    close: () =>
      channels.forEach(({ port1, port2 }) => {
        port1.postMessage({ kind: "closed" } satisfies ToRank);
        port1.close();
        port2.close(); // In case it was never sent.
      }),
  };
}

/** A call under way, as the hub knows it. */
interface Pending {
  readonly resolve: (values: Float64Array) => void;
  readonly reject: (reason: unknown) => void;
  readonly controller: AbortController;
  detail: string;
}

/** Makes one rank's calls. */
function serve(
  port: MessagePort,
  world: Engine,
  leave: (failure?: { readonly cause: unknown }) => void,
): void {
  const engines = [world];
  const pending = new Map<number, Pending>();
  const send = (message: ToRank, transfer: Transferable[] = []) =>
    port.postMessage(message, transfer);

  const begin = (message: ToHub & { readonly kind: "call" | "split" }): void => {
    const { id, name, flow } = message;
    const { promise, resolve, reject } = Promise.withResolvers<Float64Array>();
    promise.catch(() => {}); // A broken group does not look at them.
    const call = { resolve, reject, controller: new AbortController(), detail: "" };
    pending.set(id, call);
    const { signal } = call.controller;
    const request: Request = { name, values: promise, detail: () => call.detail, signal, flow };
    const engine = engines[message.group];
    const finish = (answer: ToRank, transfer?: Transferable[]) => {
      pending.delete(id);
      send(answer, transfer);
    };
    const fail = (error: unknown) => {
      if (!(error instanceof CollectiveError)) throw error;
      finish({ kind: "failure", id, failure: toPlain(error) });
    };
    if (message.kind === "call") {
      engine.meet(request).then(
        (values) =>
          finish({ kind: "values", id, values }, values.map(({ buffer }) => buffer as ArrayBuffer)),
        fail,
      );
    } else {
      engine.split(request).then((part) => {
        const { rank, worldSize } = part;
        const group = engines.push(part) - 1;
        finish({ kind: "group", id, group, rank, worldSize });
      }, fail);
    }
  };

  port.onmessage = ({ data }: MessageEvent<ToHub>) => {
    switch (data.kind) {
      case "call":
      case "split":
        return begin(data);
      case "values": {
        const call = pending.get(data.id);
        if (call) call.detail = data.detail;
        return call?.resolve(data.values);
      }
      case "failure":
        return pending.get(data.id)?.reject(new Error(data.reason));
      case "cancel":
        return pending.get(data.id)?.controller.abort(new Error(data.reason));
      case "leave":
        return leave(data.failure === null ? undefined : { cause: new Error(data.failure) });
    }
  };
}

/** One rank's end of its port. */
export interface PortEnd {
  readonly engine: Engine;
  /** Tells that this rank will make no further call. */
  readonly leave: (failure?: { readonly cause: unknown }) => void;
}

/** How much later than its deadline the hub's answer may come, before a rank takes the hub for gone. */
const SLACK_MS = 800;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Opens a rank's end.
 *
 * @param port one of a hub's
 * @param rank this rank's number
 * @param worldSize number of ranks
 * @param timeoutMs the hub's deadline
 * @returns the end
 */
export function portEnd(
  port: MessagePort,
  rank: number,
  worldSize: number,
  timeoutMs: number,
): PortEnd {
  const waiting = new Map<number, (answer: ToRank) => void>();
  let ids = 0;
  /** Why nothing will be answered any more. */
  let gone: PlainFailure | null = null;
  const send = (message: ToHub) => port.postMessage(message);
  port.onmessage = ({ data }: MessageEvent<ToRank>) => {
    if (data.kind === "closed") return end("whoever made the seats has closed them");
    waiting.get(data.id)?.(data);
    waiting.delete(data.id);
  };

  /** The hub is gone: what is pending, and all that comes later, rejects. */
  function end(why: string): void {
    gone ??= { message: `Cannot complete the call as ${why}`, code: "cancelled", ranks: [] };
    for (const [id, settle] of waiting) settle({ kind: "failure", id, failure: gone });
    waiting.clear();
  }

  /** Has the hub make a call; takes its place in line at once. */
  function call(kind: "call" | "split", group: number, request: Request): Promise<Answer> {
    const id = ++ids;
    const { name, flow, values, signal } = request;
    if (gone) {
      Promise.resolve(values).catch(() => {}); // Nobody will look at them any more.
      return Promise.reject(fromPlain(gone));
    }
    send({ kind, id, group, name, flow: flow.kind === "reduce" ? { kind: "gather" } : flow });
    const cancel = () => send({ kind: "cancel", id, reason: messageOf(signal?.reason) });
    if (signal?.aborted) cancel();
    else signal?.addEventListener("abort", cancel, { once: true });
    let detail = "";
    let failure: { readonly cause: unknown } | undefined;
    const bring = (own: Float64Array): void => {
      try {
        const copy = copyContribution(own, name);
        detail = request.detail(copy);
        send({ kind: "values", id, values: copy, detail });
      } catch (cause) {
        fail(cause);
      }
    };
    const fail = (cause: unknown): void => {
      failure = { cause };
      send({ kind: "failure", id, reason: messageOf(cause) });
    };
    // At once where it can be: the caller may write to its array after the call.
    if (values instanceof Float64Array) bring(values);
    else Promise.resolve(values).then(bring, fail);
    return new Promise((resolve, reject) => {
      const patience = timeoutMs === Infinity ? undefined : setTimeout(
        () => end(`its thread has not answered within ${timeoutMs + SLACK_MS} ms`),
        Math.min(timeoutMs + SLACK_MS, LONGEST_TIMER_MS),
      );
      waiting.set(id, (answer) => {
        clearTimeout(patience);
        signal?.removeEventListener("abort", cancel);
        if (answer.kind === "closed") return;
        if (answer.kind !== "failure") return resolve({ answer, detail });
        const { failure: plain } = answer;
        const cause = plain.code === "cancelled" ? signal?.reason : failure?.cause;
        reject(fromPlain(plain, { cause }));
      });
    });
  }

  function open(group: number, rank: number, worldSize: number): Engine {
    let calls = 0;
    return {
      rank,
      worldSize,
      meet: async (request) => {
        const number = ++calls;
        const { answer, detail } = await call("call", group, request);
        const values = answer.kind === "values" ? answer.values : [];
        const { flow, name } = request;
        if (flow.kind !== "reduce") return values;
        try {
          return conclude(flow, values)();
        } catch (cause) {
          throw combineError(number, `${name} ${detail}`, worldSize, messageOf(cause), cause);
        }
      },
      split: async (request) => {
        calls++;
        const { answer } = await call("split", group, request);
        if (answer.kind !== "group") throw new TypeError("Cannot split: the hub sent no group");
        return open(answer.group, answer.rank, answer.worldSize);
      },
    };
  }

  return {
    engine: open(0, rank, worldSize),
    leave: (failure) => send({ kind: "leave", failure: failure ? messageOf(failure.cause) : null }),
  };
}

interface Answer {
  readonly answer: Extract<ToRank, { readonly kind: "values" | "group" }>;
  /** What else was compared, once the values were known. */
  readonly detail: string;
}
