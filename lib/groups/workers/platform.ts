/**
 * The two kinds of workers there are, as one: web workers, and those of `node:worker_threads`, which tell of other events.
 */

import { builtIn } from "../../node.ts";
import { messageOf } from "../failures.ts";
import { nextTurn } from "../turns.ts";

/** A worker of `node:worker_threads`, as far as it is needed here. */
export interface NodeWorker {
  /** Listens to `"message"`, `"messageerror"`, `"error"` and `"exit"`. */
  on(event: string, listener: (value: unknown) => void): unknown;
  /** Sends the worker a message; `never`, since the types of what may be transferred are Node's own. */
  postMessage(message: unknown, transfer?: readonly never[]): void;
  /** Ends the worker. */
  terminate(): Promise<number>;
}

/** What a rank may run in: a web worker, or one of `node:worker_threads`. */
export type RankWorker = Worker | NodeWorker;

/** Who is told what becomes of a worker. */
export interface Follower {
  readonly heard: (message: unknown) => void;
  /** A message came that cannot be read. */
  readonly garbled: () => void;
  /** It threw, or could not be loaded; some platforms do not say why. */
  readonly failed: (reason: string) => void;
  /** It has ended; web workers do not say so. */
  readonly ended: () => void;
}

/** A worker's way to its maker. */
export interface Parent {
  readonly say: (message: unknown) => void;
  /** Returns what ends the listening. */
  readonly listen: (listener: (message: unknown) => void) => () => void;
  /** Is told when the worker ends itself. */
  readonly onEnd: (ending: () => void) => void;
}

interface NodeThreads {
  readonly Worker: new (module: string | URL) => NodeWorker;
  readonly parentPort: MessagePort | null;
}

interface WebScope {
  postMessage(message: unknown): void;
  addEventListener(type: string, listener: (event: MessageEvent) => void): void;
  removeEventListener(type: string, listener: (event: MessageEvent) => void): void;
  close(): void;
}

/** Starts a worker. */
export function startWorker(module: string | URL): RankWorker {
  if (typeof Worker === "function") return new Worker(module, { type: "module" });
  const threads = nodeThreads();
  // Node takes a text for a path; an address has a scheme of more than a drive's letter.
  if (threads) return new threads.Worker(/^\w\w+:/.test(`${module}`) ? new URL(module) : module);
  throw new TypeError(
    "Cannot start a worker as the platform must have Worker or process.getBuiltinModule (Node 20.16, 22.3): " +
      "current value is undefined",
  );
}

/** Sends a worker a message. */
export function post(worker: RankWorker, message: unknown, transfer: Transferable[]): void {
  worker.postMessage(message, transfer as never[]);
}

/** Follows what becomes of a worker. */
export function follow(worker: RankWorker, { heard, garbled, failed, ended }: Follower): void {
  if ("on" in worker) {
    worker.on("message", heard);
    worker.on("messageerror", garbled);
    worker.on("error", (error) => failed(messageOf(error)));
    // After what it has sent, which comes by another way.
    worker.on("exit", () => void nextTurn().then(ended));
    return;
  }
  worker.addEventListener("message", ({ data }) => heard(data));
  worker.addEventListener("messageerror", garbled);
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    failed(event.message ?? "");
  });
}

/** Finds this worker's way to its maker. */
export function openParent(): Parent {
  if ("WorkerGlobalScope" in globalThis) return webParent(globalThis as unknown as WebScope);
  const port = nodeThreads()?.parentPort;
  if (port) return nodeParent(port);
  throw new TypeError(
    "Cannot serve a rank as serveRank() must be called in a worker, which spawnWorkers() starts: " +
      "this is no worker",
  );
}

function webParent(scope: WebScope): Parent {
  return {
    say: (message) => scope.postMessage(message),
    listen: (listener) => {
      const hear = ({ data }: MessageEvent) => listener(data);
      scope.addEventListener("message", hear);
      return () => scope.removeEventListener("message", hear);
    },
    onEnd: (ending) => {
      const close = scope.close.bind(scope);
      scope.close = () => {
        ending();
        close();
      };
      scope.addEventListener("unload", ending); // Deno.exit() says so by this.
    },
  };
}

function nodeParent(port: MessagePort): Parent {
  return {
    say: (message) => port.postMessage(message),
    listen: (listener) => {
      const hear = ({ data }: MessageEvent) => listener(data);
      port.addEventListener("message", hear);
      return () => port.removeEventListener("message", hear);
    },
    onEnd: () => {}, // Its maker is told, and also why.
  };
}

function nodeThreads(): NodeThreads | undefined {
  return builtIn<NodeThreads>("node:worker_threads");
}
