/**
 * The engine over message ports, for threads that may not share memory: one thread, the hub, keeps an in-process group
 * and makes every rank's calls in its place.
 */

import { deferred } from "../../deferred.ts";
import { isCollectiveError } from "../../errors.ts";
import { toPlain } from "../failures.ts";
import { createWorld, type InProcessOptions, type LocalEngine } from "../in_process.ts";
import type { LocalRequest } from "../rendezvous.ts";
import { isTaken, type ToHub, type ToRank } from "./port_messages.ts";

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
