/** What may befall a team, in words. All of it ends the team. */

import { DeviceError } from "../../../lib/errors.ts";

function lost(message: string, cause?: unknown): DeviceError {
  return new DeviceError(message, "lost", cause === undefined ? undefined : { cause });
}

/** A kernel threw on a thread; `cause` where that was the caller's. */
export function trapped(kernel: string, thread: number, text: string, cause?: unknown) {
  const current = `current value is "${text}" on thread ${thread}`;
  return lost(`Cannot finish ${kernel} as it must not trap: ${current}`, cause);
}

/** A thread has not come to an end of its part: it is dead, still at work, or never got a core. */
export function unfinished(kernel: string, thread: number, timeoutMs: number) {
  const wanted = `every thread must be done ${timeoutMs} ms after the caller`;
  return lost(
    `Cannot finish ${kernel} as ${wanted}: current value is that thread ${thread} is not`,
  );
}

/** A thread ended by itself, or somebody terminated it. */
export function dead(thread: number, reason: string) {
  return lost(`Cannot run kernels as thread ${thread} must be alive: current value is "${reason}"`);
}

/** Not all threads have started. */
export function notStarted(reason: string, cause?: unknown) {
  const wanted = "all its threads must become ready";
  return lost(`Cannot start a team as ${wanted}: current value is "${reason}"`, cause);
}

/** The team's owner has closed it. */
export function closed() {
  return lost("Cannot run a kernel as its team must be open: current value is closed");
}

/** A policy of the page forbids workers whose program is a text. */
export function notAllowed(): DeviceError {
  return new DeviceError(
    "Cannot start a thread as the page's Content-Security-Policy must allow workers from blob: URLs: " +
      "add blob: to its directive worker-src (which falls back to child-src, script-src and default-src), " +
      "hand wasmDevice() a module of your own by threadsFrom, or take one thread",
    "unsupported",
  );
}
