/** What a helper's thread runs: one function whose text is the whole program of a worker. */

import type { Greeting, Layout, Start } from "./protocol.ts";

/** A worker's end of the channel to its maker: `self` in a browser, `parentPort` in Node and Deno. */
export interface HelperPort {
  onmessage: ((event: { readonly data: Start }) => void) | null;
  readonly postMessage: (greeting: Greeting) => void;
  readonly close?: () => void;
}

/**
 * Serves a slot: waits for calls, runs them, says when they have ended. Travels as text, so it closes over nothing; and it
 * gives no function a name, since bundlers may wrap those in a function of their own.
 *
 * A helper spins for its next call first, as waking a thread costs more than most kernels. Then it sleeps, and now and
 * then returns to its event loop: only there can it be terminated in Deno.
 */
export function helper(port: HelperPort, layout: Layout): void {
  port.onmessage = async ({ data: { module, memory, control, slot, kernels } }) => {
    const { epoch, callerSleeps, done, helperSleeps, failed } = layout;
    const at = slot * layout.slotBytes;
    const words = new Int32Array(control, at, layout.slotBytes / 4);
    const numbers = new Float64Array(control, at + layout.argumentBytes, layout.mostArguments);
    const letters = new Uint16Array(control, at + layout.textBytes, layout.mostLetters);
    let exports: WebAssembly.Exports;
    try {
      exports = new WebAssembly.Instance(module, { env: { memory } }).exports;
    } catch (error) {
      port.postMessage({ kind: "failed", text: String(error) });
      return port.close?.();
    }
    port.postMessage({ kind: "ready" });
    for (let seen = 0, spinMs = layout.mostSpinMs, vain = 0, slept = false;;) {
      const end = performance.now() + (slept ? 0 : spinMs);
      let look = 0;
      while (
        Atomics.load(words, epoch) === seen &&
        (++look % layout.looks !== 0 || performance.now() < end)
      );
      if (Atomics.load(words, epoch) === seen) {
        // Says so before it looks once more, by Atomics.wait, while the caller first moves the epoch and then asks: one of
        // the two must see the other.
        Atomics.store(words, helperSleeps, 1);
        const woken = Atomics.wait(words, epoch, seen, layout.sliceMs);
        Atomics.store(words, helperSleeps, 0);
        if (woken === "timed-out") await new Promise((resolve) => setTimeout(resolve, 0));
        slept = true;
        continue;
      }
      if (slept) {
        const full = ++vain % layout.retry === 0;
        spinMs = full ? layout.mostSpinMs : Math.max(layout.leastSpinMs, spinMs / 2);
      } else {
        vain = 0;
        spinMs = Math.min(layout.mostSpinMs, 2 * spinMs);
      }
      slept = false;
      seen = Atomics.load(words, epoch);
      if (words[layout.kernel] === layout.stop) return port.close?.();
      try {
        const values = Array.from(numbers.subarray(0, words[layout.count]));
        (exports[kernels[words[layout.kernel]]] as (...values: number[]) => void)(...values);
      } catch (error) {
        const text = String(error).slice(0, layout.mostLetters);
        for (let i = 0; i < text.length; i++) letters[i] = text.charCodeAt(i);
        words[failed] = text.length;
      }
      Atomics.store(words, done, seen);
      if (Atomics.load(words, callerSleeps) === 1) Atomics.notify(words, done);
    }
  };
}
