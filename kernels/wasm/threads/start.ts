/**
 * Starts threads whose program is a text: by `node:worker_threads` where that is built in, elsewhere as web workers.
 *
 * Deno has both, and there the former is chosen: only such a worker can be kept from keeping the program alive, and of a web
 * worker that is busy or asleep `terminate()` rids neither the processor nor the program (Deno 2.9.6).
 * Browsers get web workers from a Blob URL, whose program is the text of one function.
 */

import { DeviceError } from "../../../lib/errors.ts";
import { builtIn } from "../../../lib/node.ts";
import { notAllowed } from "./failures.ts";
import { helper } from "./helper.ts";
import { type Greeting, LAYOUT, type Start } from "./protocol.ts";

/** Who is told what becomes of a thread. */
export interface Listener {
  readonly greeted: (greeting: Greeting) => void;
  /** The thread has ended, or its program could not be run. */
  readonly ended: (reason: string) => void;
  /** The thread may not be started here; told by platforms that are asked for a program by its address. */
  readonly refused: () => void;
}

/** A thread, as its maker sees it. */
export interface Thread {
  readonly post: (start: Start) => void;
  /** From now on the thread does not keep the program alive, where that can be had. */
  readonly rest: () => void;
  /** Terminates it, as far as the platform can: at the latest when it returns to its event loop. */
  readonly end: () => void;
}

/** Starts a thread that runs {@linkcode helper}. */
export type StartThread = (listener: Listener) => Thread;

interface NodeWorker {
  on(type: "message", listener: (greeting: Greeting) => void): void;
  on(type: "error", listener: (error: unknown) => void): void;
  on(type: "exit", listener: (code: number) => void): void;
  postMessage(start: Start): void;
  unref(): void;
  terminate(): Promise<number>;
}

type NodeWorkerClass = new (
  source: string,
  options: { readonly eval: true; readonly execArgv: readonly string[] },
) => NodeWorker;

/** Starts a thread as the platform has them. */
export const startThread: StartThread = (listener) => {
  const threads = builtIn<{ readonly Worker: NodeWorkerClass }>("node:worker_threads");
  if (threads) return nodeThread(threads.Worker, listener);
  if (typeof Worker === "function") return startWebThread(listener);
  throw new DeviceError(
    "Cannot start a thread as the platform must have Worker or node:worker_threads: " +
      "current value is undefined",
    "unsupported",
  );
};

function nodeThread(NodeWorker: NodeWorkerClass, { greeted, ended }: Listener): Thread {
  const port = `process.getBuiltinModule("node:worker_threads").parentPort`;
  // Without the program's own flags, which may say how its text is to be read.
  const worker = new NodeWorker(program(port), { eval: true, execArgv: [] });
  worker.on("message", greeted);
  worker.on("error", (error) => ended(String(error)));
  worker.on("exit", (code) => ended(`it ended with code ${code}`));
  return {
    post: (start) => worker.postMessage(start),
    rest: () => worker.unref(),
    end: () => void worker.terminate(),
  };
}

/** Starts a web worker; also what `startThread` does where there is nothing else. */
export function startWebThread(listener: Listener): Thread {
  const url = URL.createObjectURL(new Blob([program("self")], { type: "text/javascript" }));
  // The program is a text that is there: what keeps it from being loaded is a policy, and nothing is said of it.
  // Its address is revoked only once it was read: some platforms read it late.
  return webThread(openWorker(url), listener, listener.refused, () => URL.revokeObjectURL(url));
}

/** Starts threads in workers of the caller's own. */
export function startThreadFrom(from: string | URL | (() => Worker)): StartThread {
  return (listener) => {
    if (typeof from !== "function" && typeof Worker !== "function") {
      throw new DeviceError(
        "Cannot start a thread from an address as this platform has no Worker: leave threadsFrom out, " +
          "as its own threads need none",
        "unsupported",
      );
    }
    const worker = typeof from === "function" ? from() : new Worker(from, { type: "module" });
    const silent = () =>
      listener.ended(
        `${
          typeof from === "function" ? "its module" : from
        } could not be loaded or run: it must call serveThread()`,
      );
    return webThread(worker, listener, silent);
  };
}

/**
 * Follows a web worker.
 *
 * @param silent told where it could not be loaded and nothing is said of it
 * @param read told once its program was read, or never will be
 */
function webThread(
  worker: Worker,
  { greeted, ended }: Listener,
  silent: () => void,
  read: () => void = () => {},
): Thread {
  worker.addEventListener("message", ({ data }: MessageEvent<Greeting>) => {
    read();
    greeted(data);
  });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    read();
    if (event.message === undefined) silent();
    else ended(event.message);
  });
  return {
    post: (start) => worker.postMessage(start),
    rest: () => {},
    end: () => {
      read();
      worker.terminate();
    },
  };
}

/** Some platforms say at once that a policy forbids it, others by an event. */
function openWorker(url: string): Worker {
  try {
    return new Worker(url, { type: "module" });
  } catch (error) {
    URL.revokeObjectURL(url);
    if ((error as Error).name === "SecurityError") throw notAllowed();
    throw error;
  }
}

/** The whole text of a helper's program, which is told its port and the layout of the words. */
export function program(port: string): string {
  return `(${helper})(${port}, ${JSON.stringify(LAYOUT)});`;
}
