/**
 * Threads that run one kernel together, each on its own part: the caller's and those of helpers, on one shared memory.
 *
 * @module
 */

import { DeviceError, isDeviceError } from "../../../lib/errors.ts";
import { alarmIn, patienceFor } from "../../../lib/patience.ts";
import { mayBlock, sharesMemory } from "../../../lib/threads.ts";
import { closed, dead, notAllowed, notStarted, trapped, unfinished } from "./failures.ts";
import { LAYOUT } from "./protocol.ts";
import { controlBuffer, openSlot, type Slot } from "./slot.ts";
import { type StartThread, startThread, type Thread } from "./start.ts";

/** Says why a team has one thread here, whatever is asked for. */
export function whyOneThread(): string | null {
  if (!sharesMemory()) {
    return "threads may not share memory: serve the page with Cross-Origin-Opener-Policy: same-origin and " +
      "Cross-Origin-Embedder-Policy: require-corp";
  }
  if (!mayBlock()) return "this thread may not wait: open the device in a worker";
  return null;
}

/**
 * Threads on one memory.
 *
 * A team that has failed stays so, and its memory is of no use any more: a helper that did not finish in time may still
 * write to it, since no platform but a browser can stop a busy thread.
 */
export interface Team {
  /** Threads, the caller's included. */
  readonly threads: number;
  /** Runs a kernel on the first `parts.length` threads, each with its own arguments, and returns when all are done. */
  readonly run: (kernel: string, parts: readonly (readonly number[])[]) => void;
  /** Ends the helpers. Again: does nothing. Without it they end with the program, which they do not keep alive. */
  readonly close: () => void;
}

/** What a team works with. */
export interface TeamOptions {
  /** Imports `env.memory` only; every kernel is an exported function. */
  readonly module: WebAssembly.Module;
  /** Shared where there is more than one thread. */
  readonly memory: WebAssembly.Memory;
  /** Those of the caller's own instance. */
  readonly exports: Record<string, (...values: number[]) => void>;
  /** How many threads, the caller's included: 1 to 16. */
  readonly threads: number;
  /** How long helpers may take to start, and in each run after the caller's own part has ended, in ms of the caller's own. */
  readonly timeoutMs: number;
}

const MOST_THREADS = 16;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

interface Kernel {
  readonly number: number;
  readonly call: (...values: number[]) => void;
}

/**
 * Starts the helpers of a team, and waits until all are ready. With one thread there are none, and `run` just calls.
 *
 * A team belongs to the thread that made it, which may itself be a worker. What runs in the helpers needs no permission
 * and loads no file. An idle helper sleeps; it wakes once a second to see whether it was terminated.
 *
 * @example Two threads fill one memory
 * ```ts ignore
 * const team = await createTeam({ module, memory, exports, threads: 2, timeoutMs: 10_000 });
 * team.run("fill", [[0, 512, 1], [512, 1024, 1]]);
 * team.close();
 * ```
 */
export async function createTeam(
  options: TeamOptions,
  start: StartThread = startThread,
): Promise<Team> {
  check(options);
  const { module, memory, exports, threads, timeoutMs } = options;
  const names = Object.keys(exports).filter((name) => typeof exports[name] === "function");
  const kernels = new Map(
    names.map((name, number): [string, Kernel] => [name, { number, call: exports[name] }]),
  );
  // One thread must do without shared memory: not every page has it.
  const control = threads === 1 ? null : controlBuffer(threads - 1);
  const slots = control === null
    ? []
    : Array.from({ length: threads - 1 }, (_, index) => openSlot(control, index));
  const helpers: Thread[] = [];
  let ended: DeviceError | undefined;

  const end = (error: DeviceError): DeviceError => {
    if (ended) return ended;
    ended = error;
    for (const slot of slots) slot.stop();
    for (const helper of helpers) helper.end();
    return error;
  };
  let giveUp = () => {};
  const started = new Promise<void>((resolve, reject) => {
    if (control === null) return resolve();
    const late = () => reject(end(notStarted(`it took more than ${timeoutMs} ms`)));
    giveUp = alarmIn(timeoutMs, late);
    let ready = 0;
    for (const slot of slots.keys()) {
      const fail = (reason: string) => reject(end(dead(slot + 1, reason)));
      const helper = start({
        greeted: (greeting) => {
          if (greeting.kind === "failed") {
            reject(end(notStarted(`thread ${slot + 1}: ${greeting.text}`)));
          } else if (++ready === slots.length) resolve();
        },
        // Once all have started this ends the team, and the next run tells.
        ended: fail,
        refused: () => reject(end(notAllowed())),
      });
      helpers.push(helper);
      helper.post({ module, memory, control, slot, kernels: names });
    }
  });
  try {
    await started;
  } catch (error) {
    throw end(isDeviceError(error) ? error : notStarted(String(error), error));
  } finally {
    giveUp();
  }
  for (const helper of helpers) helper.rest();

  const run = (kernel: string, parts: readonly (readonly number[])[]): void => {
    if (ended) throw ended;
    const { number, call } = find(kernels, kernel);
    checkParts(parts, threads, kernel, call.length);
    for (let i = 1; i < parts.length; i++) slots[i - 1].hand(number, parts[i]);
    let trap: DeviceError | undefined;
    try {
      if (parts.length > 0) call(...parts[0]);
    } catch (cause) {
      trap = trapped(kernel, 0, String(cause), cause);
    }
    // Even then: nobody shall still write to the memory, as far as that can be had.
    const failure = parts.length > 1 ? gather(slots, parts.length, kernel, timeoutMs) : undefined;
    if (trap ?? failure) throw end((trap ?? failure)!);
  };
  return Object.freeze({ threads, run, close: () => void end(closed()) });
}

/** Waits for the helpers that were called; what went wrong with the first of those that failed. */
function gather(
  slots: readonly Slot[],
  parts: number,
  kernel: string,
  timeoutMs: number,
): DeviceError | undefined {
  const patience = patienceFor(timeoutMs);
  let failure: DeviceError | undefined;
  for (let thread = 1; thread < parts; thread++) {
    const slot = slots[thread - 1];
    if (!slot.await(patience)) {
      failure ??= unfinished(kernel, thread, timeoutMs);
      continue;
    }
    const text = slot.failure();
    if (text !== null) failure ??= trapped(kernel, thread, text);
  }
  return failure;
}

function check({ memory, exports, threads, timeoutMs }: TeamOptions): void {
  if (!(Number.isInteger(threads) && threads >= 1 && threads <= MOST_THREADS)) {
    throw new RangeError(
      `Cannot start a team as threads must be an integer from 1 to ${MOST_THREADS}: ` +
        `current value is ${threads}`,
    );
  }
  if (!(timeoutMs > 0 && timeoutMs <= LONGEST_TIMER_MS)) {
    throw new RangeError(
      `Cannot start a team as timeoutMs must be above 0 and at most ${LONGEST_TIMER_MS}: ` +
        `current value is ${timeoutMs}`,
    );
  }
  if (threads === 1) return;
  for (const [name, kernel] of Object.entries(exports)) {
    if (typeof kernel === "function" && kernel.length > LAYOUT.mostArguments) {
      throw new RangeError(
        `Cannot start a team as a kernel must have at most ${LAYOUT.mostArguments} arguments: ` +
          `current value of ${name} is ${kernel.length}`,
      );
    }
  }
  const lacking = !sharesMemory() ? "share memory with workers" : !mayBlock() ? "block" : null;
  if (lacking) {
    throw new DeviceError(
      `Cannot start a team of ${threads} threads as the calling thread must be allowed to ` +
        `${lacking}: current value is false; take one thread`,
      "unsupported",
    );
  }
  if (!(memory.buffer instanceof SharedArrayBuffer)) {
    throw new TypeError(
      `Cannot start a team of ${threads} threads as its memory must be shared: ` +
        `current value is not`,
    );
  }
}

function find(kernels: ReadonlyMap<string, Kernel>, name: string): Kernel {
  const kernel = kernels.get(name);
  if (kernel) return kernel;
  throw new TypeError(
    `Cannot run a kernel as the module must export it: current value is ${JSON.stringify(name)}`,
  );
}

function checkParts(
  parts: readonly (readonly number[])[],
  threads: number,
  kernel: string,
  count: number,
): void {
  if (parts.length > threads) {
    throw new RangeError(
      `Cannot run ${kernel} as there must be at most a part for each of ${threads} threads: ` +
        `current value is ${parts.length}`,
    );
  }
  for (const part of parts) {
    if (part.length === count) continue;
    throw new TypeError(
      `Cannot run ${kernel} as it must have ${count} arguments: current value is ${part.length}`,
    );
  }
}
