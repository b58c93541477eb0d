/**
 * The words by which a caller and its helpers hand each other work: where they lie, and what starts a helper. They have a
 * buffer of their own, so that no kernel can overwrite them.
 */

/**
 * Where a helper's words lie in its slot. Epochs only grow (and wrap around), so that one store hands over a call and one
 * takes it back. What is written by different threads lies 128 bytes apart: processors fetch lines of 64 bytes in pairs.
 */
export const LAYOUT = Object.freeze({
  /** Bytes of a slot. */
  slotBytes: 768,
  /** Word: number of the last call that was handed over; written by the caller. */
  epoch: 0,
  /** Word: 1 while the caller sleeps until `done` moves. */
  callerSleeps: 1,
  /** Word: which kernel, or `stop`. */
  kernel: 32,
  /** Word: how many arguments. */
  count: 33,
  /** Byte where the arguments begin, float64 each. */
  argumentBytes: 136,
  /** How many arguments a kernel may have. */
  mostArguments: 30,
  /** Word: number of the last call that came to an end; written by the helper. */
  done: 96,
  /** Word: 1 while the helper sleeps until `epoch` moves. */
  helperSleeps: 97,
  /** Word: how many letters the helper's failure has; 0 where it has not failed. */
  failed: 98,
  /** Byte where the text of the failure begins, UTF-16. */
  textBytes: 512,
  /** Letters that there is room for. */
  mostLetters: 128,
  /** What stands for a kernel where the helper shall end. */
  stop: -1,
  /**
   * How long a helper spins for its next call before it sleeps, in ms: the most, if the last calls came meanwhile, and
   * half of that each time that none did, as then it keeps a core from others in vain.
   */
  mostSpinMs: 0.3,
  /** What it spins at least, in ms: longer than a caller needs between two kernels. */
  leastSpinMs: 0.1,
  /** After so many calls that it slept through it spins the most again. */
  retry: 8,
  /** How long a helper sleeps at a stretch, in ms. */
  sliceMs: 1000,
  /** How often caller and helpers look between two looks at the clock, which leave garbage: some 6 us. */
  looks: 1024,
});

/** The layout that caller and helpers agree on; helpers are told of it. */
export type Layout = { readonly [Name in keyof typeof LAYOUT]: number };

/** What starts a helper. */
export interface Start {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** This helper's slots and those of the others. */
  readonly control: SharedArrayBuffer;
  /** Which slot is the helper's, >= 0. */
  readonly slot: number;
  /** Names of the exported functions, in the order of their numbers. */
  readonly kernels: readonly string[];
}

/** What a helper says once: that it is ready, or why it never will be. */
export type Greeting =
  | { readonly kind: "ready" }
  | { readonly kind: "failed"; readonly text: string };
