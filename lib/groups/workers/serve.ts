/**
 * A worker's side of spawnWorkers(): it says that it is ready, serves its rank, and tells what came of it.
 */

import type { ProcessGroup } from "../../collectives.ts";
import { isCollectiveError } from "../../errors.ts";
import { processGroup } from "../engine.ts";
import { display, messageOf, type PlainFailure, toPlain } from "../failures.ts";
import { openParent, type Parent } from "./platform.ts";
import { takeSeat, type WorkerGroupOptions, type WorkerSeat } from "./seats.ts";

/** A worker to its maker. */
export type FromRank =
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "failed"; readonly failure: Thrown }
  | { readonly kind: "closed" }
  /** A rejection that nobody in the worker handles. */
  | { readonly kind: "stray"; readonly reason: string }
  /** The answer to any message. */
  | { readonly kind: "alive" };

/** What a body threw. */
export interface Thrown {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  readonly plain?: PlainFailure;
}

/** The marks of the messages that start a rank, so that a worker's own messages are not mistaken for them. */
export const READY = "syncbn: ready to serve a rank";
/** See {@linkcode READY}. */
export const START = "syncbn: start the rank";

/** What starts a rank. */
export interface Start {
  readonly mark: typeof START;
  readonly seat: WorkerSeat;
  readonly options: WorkerGroupOptions;
  readonly parameter: unknown;
  readonly port: MessagePort;
}

/**
 * Serves a rank: to be called once, at the top level of the module that {@linkcode spawnWorkers} was given.
 *
 * @param body what the rank does, with its handle on the group and the `parameter`; what it returns travels back by
 * structured clone
 * @throws TypeError where this is no worker
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
  const parent = openParent();
  const stop = parent.listen((message) => {
    const start = message as Start | null;
    if (start?.mark !== START) return;
    stop();
    serve(parent, start, body);
  });
  parent.say(READY);
}

async function serve<P, R>(
  parent: Parent,
  { seat, options, parameter, port }: Start,
  body: (group: ProcessGroup, parameter: P) => Promise<R> | R,
): Promise<void> {
  const send = (message: FromRank) => port.postMessage(message);
  let taken: ReturnType<typeof takeSeat> | undefined;
  parent.onEnd(() => {
    send({ kind: "closed" });
    taken?.leave();
  });
  port.onmessage = () => send({ kind: "alive" });
  // Deno and Node end a worker for it; a browser says nothing of it outside.
  globalThis.addEventListener?.("unhandledrejection", ({ reason }) => {
    send({ kind: "stray", reason: messageOf(reason) });
  });
  try {
    taken = takeSeat(seat, options);
    const result = await body(processGroup(taken.engine), parameter as P);
    checkResult(result);
    taken.leave();
    send({ kind: "done", result });
  } catch (cause) {
    send({ kind: "failed", failure: thrown(cause) });
    taken?.leave({ cause });
  }
}

/**
 * Finds what belongs to a device in what a rank returns: its handle would travel, or not even that, and its numbers stay.
 */
function checkResult(result: unknown): void {
  const seen = new Set<unknown>();
  const look: { readonly value: unknown; readonly path: string }[] = [{ value: result, path: "" }];
  for (let next = look.pop(); next; next = look.pop()) {
    const { value, path } = next;
    if (typeof value !== "object" || value === null || seen.has(value)) continue;
    if (ArrayBuffer.isView(value)) continue;
    seen.add(value);
    if (DEVICES.includes((value as { readonly device?: unknown }).device)) {
      throw new TypeError(
        `Cannot return ${
          path ? `"${path}"` : "it"
        } from a rank as what travels must be numbers: it is a live array ` +
          `of a device, which ends with its worker; read it first, by toArray() or stateToHost()`,
      );
    }
    const entries = value instanceof Map || Array.isArray(value)
      ? [...value.entries()]
      : value instanceof Set
      ? [...[...value].entries()]
      : Object.entries(value);
    for (const [key, value] of entries) {
      look.push({ value, path: path ? `${path}.${display(key)}` : display(key) });
    }
  }
}

/** What arrays say of themselves. */
const DEVICES: readonly unknown[] = ["reference", "wasm", "webgpu"];

/** What can be said of a thrown value and sent: its texts may be none, or not be had. */
function thrown(error: unknown): Thrown {
  const plain = isCollectiveError(error) ? toPlain(error) : undefined;
  const text = (look: () => unknown): string | undefined => {
    try {
      const value = look();
      return typeof value === "string" ? value : undefined;
    } catch {
      return undefined;
    }
  };
  return {
    name: text(() => (error as Error).name) ?? "Error",
    message: messageOf(error),
    stack: text(() => (error as Error).stack),
    ...(plain ? { plain } : {}),
  };
}
