/**
 * Starts threads whose program is a text: by `node:worker_threads` where that is built in, elsewhere as web workers.
 *
 * Deno has both, and there the former is chosen: only such a worker can be kept from keeping the program alive, and of a web
 * worker that is busy or asleep `terminate()` rids neither the processor nor the program (Deno 2.9.6).
 * Browsers get web workers from a Blob URL, whose program is the text of one function.
 */

import { DeviceError } from "../../../lib/errors.ts";
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
  const NodeWorker = nodeWorkers();
  if (NodeWorker) return nodeThread(NodeWorker, listener);
  if (typeof Worker === "function") return startWebThread(listener);
  throw new DeviceError(
    "Cannot start a thread as the platform must have Worker or node:worker_threads: " +
      "current value is undefined",
    "unsupported",
  );
};

/** Asked of the platform at run time: an import would stop bundles for browsers. */
function nodeWorkers(): NodeWorkerClass | undefined {
  type Built = { readonly Worker: NodeWorkerClass };
  type Host = { readonly getBuiltinModule?: (name: string) => Built | undefined };
  const { process } = globalThis as { readonly process?: Host };
  return process?.getBuiltinModule?.("node:worker_threads")?.Worker;
}

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
export function startWebThread({ greeted, ended, refused }: Listener): Thread {
  const url = URL.createObjectURL(new Blob([program("self")], { type: "text/javascript" }));
  // Only once the program was read: some platforms read it late.
  const revoke = () => URL.revokeObjectURL(url);
  const worker = openWorker(url);
  worker.addEventListener("message", ({ data }: MessageEvent<Greeting>) => {
    revoke();
    greeted(data);
  });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    revoke();
    // The program is a text that is there: what keeps it from being loaded is a policy, and nothing is said of it.
    if (event.message === undefined) refused();
    else ended(event.message);
  });
  return {
    post: (start) => worker.postMessage(start),
    rest: () => {},
    end: () => {
      revoke();
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
