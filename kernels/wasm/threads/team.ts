/** Threads that run one kernel together, each on its own part: the caller's and those of helpers, on one shared memory. */

import { type DeviceError, isDeviceError } from "../../../lib/errors.ts";
import { alarmIn, patienceFor } from "../../../lib/patience.ts";
import { mayBlock, sharesMemory } from "../../../lib/threads.ts";
import { closed, dead, notAllowed, notStarted, trapped, unfinished } from "./failures.ts";
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

/**
 * Starts the helpers of a team, and waits until all are ready. With one thread there are none, and `run` just calls.
 *
 * A team belongs to the thread that made it, which may itself be a worker. What runs in the helpers needs no permission
 * and loads no file. An idle helper sleeps; it wakes once a second to see whether it was terminated.
 */
export async function createTeam(
  options: TeamOptions,
  start: StartThread = startThread,
): Promise<Team> {
  const { module, memory, exports, threads, timeoutMs } = options;
  const kernels = Object.keys(exports);
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
      helper.post({ module, memory, control, slot, kernels });
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
    const number = kernels.indexOf(kernel);
    for (let i = 1; i < parts.length; i++) slots[i - 1].hand(number, parts[i]);
    let trap: DeviceError | undefined;
    try {
      if (parts.length > 0) exports[kernel](...parts[0]);
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
