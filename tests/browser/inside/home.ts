/** The way home: what is said while a message travels goes with the next one. */

import type { Said } from "./told.ts";

/** Sends messages in order. */
export function createHome(): {
  readonly say: (said: Said) => void;
  /** Resolves once all has arrived. */
  readonly arrived: () => Promise<void>;
} {
  let waiting: Said[] = [];
  let sending: Promise<void> | null = null;
  const send = async (): Promise<void> => {
    while (waiting.length > 0) {
      const body = JSON.stringify(waiting);
      waiting = [];
      await fetch("/told", { method: "POST", body });
    }
    sending = null;
  };
  return {
    say: (said) => {
      waiting.push(said);
      sending ??= send();
    },
    arrived: () => sending ?? Promise.resolve(),
  };
}
