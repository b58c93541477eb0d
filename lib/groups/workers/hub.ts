/**
 * The engine over message ports, for threads that may not share memory: one thread, the hub, keeps an in-process group
 * and makes every rank's calls in its place. Here the hub, and what it and the ranks tell each other.
 */

import { deferred } from "../../deferred.ts";
import { isCollectiveError } from "../../errors.ts";
import { type PlainFailure, toPlain } from "../failures.ts";
import type { LocalFlow } from "../flow.ts";
import { createWorld, type InProcessOptions, type LocalEngine } from "../in_process.ts";
import type { LocalRequest } from "../rendezvous.ts";
import { isTaken } from "./port_end.ts";

/** A rank to its hub; `id` numbers the rank's calls in all its groups. */
export type ToHub =
  /** The first of all: the seat is taken. */
  | { readonly kind: "take" }
  | {
    readonly kind: "call" | "split";
    readonly id: number;
    readonly group: number;
    readonly name: string;
    /** How the values travel: what a rank folds is gathered. */
    readonly flow: Exclude<LocalFlow, { readonly kind: "reduce" }>;
  }
  | {
    readonly kind: "values";
    readonly id: number;
    readonly values: Float64Array;
    readonly detail: string;
    /** Whether there are too many to be gathered: they come in a group for this call alone. */
    readonly inPieces: boolean;
  }
  | { readonly kind: "failure" | "cancel"; readonly id: number; readonly reason: string }
  /** The rank has let go of a group. */
  | { readonly kind: "drop"; readonly group: number }
  /** Whether the hub is there. */
  | { readonly kind: "ask" }
  | { readonly kind: "leave"; readonly failure: string | null };

/** What came of a call. */
export type ToRank =
  | { readonly kind: "values"; readonly id: number; readonly values: readonly Float64Array[] }
  | {
    readonly kind: "group";
    readonly id: number;
    readonly group: number;
    readonly rank: number;
    readonly worldSize: number;
  }
  | { readonly kind: "failure"; readonly id: number; readonly failure: PlainFailure }
  /** The hub is there. */
  | { readonly kind: "alive" }
  /** The hub will answer nothing any more, or not this end: somebody else has the seat. */
  | { readonly kind: "closed" | "taken" };

/** The thread that all ranks' ports lead to. */
export interface Hub {
  /** One port per rank, to be transferred to it. */
  readonly ports: readonly MessagePort[];
  /** Tells that a rank will make no further call. */
  readonly leave: (rank: number, failure?: { readonly cause: unknown }) => void;
  /** Closes all ports. */
  readonly close: () => void;
}

/** Opens the hub of a world. */
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
        // One that was never sent; who has taken it in this thread is still to hear of it, and closes it then.
        if (!isTaken(port2)) port2.close();
      }),
  };
}

/** A call under way, as the hub knows it. */
interface Pending {
  readonly resolve: (values: Float64Array) => void;
  readonly reject: (reason: unknown) => void;
  readonly controller: AbortController;
  detail: string;
  inPieces: boolean;
}

/** A group of the rank, and how many calls it has made there. */
interface Place {
  readonly engine: LocalEngine;
  calls: number;
}

/** Makes one rank's calls. */
function serve(
  port: MessagePort,
  world: LocalEngine,
  leave: (failure?: { readonly cause: unknown }) => void,
): void {
  const places = new Map<number, Place>([[0, { engine: world, calls: 0 }]]);
  const pending = new Map<number, Pending>();
  let groups = 1;
  let taken = false;
  const send = (message: ToRank, transfer: Transferable[] = []) =>
    port.postMessage(message, transfer);
  const sendGroup = (id: number, engine: LocalEngine): void => {
    const { rank, worldSize } = engine;
    const group = groups++;
    places.set(group, { engine, calls: 0 });
    send({ kind: "group", id, group, rank, worldSize });
  };

  const begin = (message: ToHub & { readonly kind: "call" | "split" }): void => {
    const { id, name, flow } = message;
    const { promise, resolve, reject } = deferred<Float64Array>();
    promise.catch(() => {}); // A broken group does not look at them.
    const controller = new AbortController();
    const call: Pending = { resolve, reject, controller, detail: "", inPieces: false };
    pending.set(id, call);
    const { signal } = controller;
    const place = places.get(message.group)!;
    const { engine } = place;
    const number = ++place.calls;
    const request: LocalRequest = {
      name,
      values: promise,
      detail: () => call.detail,
      signal,
      flow,
    };
    const done = () => pending.delete(id);
    const fail = (error: unknown) => {
      if (!isCollectiveError(error)) throw error;
      done();
      send({ kind: "failure", id, failure: toPlain(error) });
    };
    if (message.kind === "split") {
      const split = engine.split({ ...request, flow: { kind: "gather" } });
      return void split.then((part) => done() && sendGroup(id, part), fail);
    }
    engine.meet(request).then((values) => {
      done();
      if (call.inPieces) return sendGroup(id, engine.within(number));
      send({ kind: "values", id, values }, values.map(({ buffer }) => buffer as ArrayBuffer));
    }, fail);
  };

  port.onmessage = ({ data }: MessageEvent<ToHub>) => {
    switch (data.kind) {
      case "take":
        if (taken) return send({ kind: "taken" });
        taken = true;
        return;
      case "call":
      case "split":
        return begin(data);
      case "values": {
        const call = pending.get(data.id);
        if (call) Object.assign(call, { detail: data.detail, inPieces: data.inPieces });
        return call?.resolve(data.values);
      }
      case "failure":
        return pending.get(data.id)?.reject(new Error(data.reason));
      case "cancel":
        return pending.get(data.id)?.controller.abort(new Error(data.reason));
      case "drop":
        return void places.delete(data.group);
      case "ask":
        return send({ kind: "alive" });
      case "leave":
        return leave(data.failure === null ? undefined : { cause: new Error(data.failure) });
    }
  };
}
