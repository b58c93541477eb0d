/**
 * The words by which a caller and its helpers hand each other work: where they lie, and what starts a helper. They have a
 * buffer of their own, so that no kernel can overwrite them.
 */

/**
 * Where a helper's words lie in its slot. Epochs only grow (and wrap around), so that one store hands over a call and one
 * takes it back. What is written by different threads lies 128 bytes apart: processors fetch lines of 64 bytes in pairs.
 */
export interface Layout {
  /** Bytes of a slot. */
  readonly slotBytes: number;
  /** Word: number of the last call that was handed over; written by the caller. */
  readonly epoch: number;
  /** Word: 1 while the caller sleeps until `done` moves. */
  readonly callerSleeps: number;
  /** Word: which kernel, or {@linkcode Layout.stop}. */
  readonly kernel: number;
  /** Word: how many arguments. */
  readonly count: number;
  /** Byte where the arguments begin, float64 each. */
  readonly argumentBytes: number;
  /** How many arguments a kernel may have. */
  readonly mostArguments: number;
  /** Word: number of the last call that came to an end; written by the helper. */
  readonly done: number;
  /** Word: 1 while the helper sleeps until `epoch` moves. */
  readonly helperSleeps: number;
  /** Word: how many letters the helper's failure has; 0 where it has not failed. */
  readonly failed: number;
  /** Byte where the text of the failure begins, UTF-16. */
  readonly textBytes: number;
  /** Letters that there is room for. */
  readonly mostLetters: number;
  /** What stands for a kernel where the helper shall end. */
  readonly stop: number;
  /**
   * How long a helper spins for its next call before it sleeps, in ms: the most, if the last calls came meanwhile, and
   * half of that each time that none did, as then it keeps a core from others in vain.
   */
  readonly mostSpinMs: number;
  /** What it spins at least, in ms: longer than a caller needs between two kernels. */
  readonly leastSpinMs: number;
  /** After so many calls that it slept through it spins the most again. */
  readonly retry: number;
  /** How long a helper sleeps at a stretch, in ms. */
  readonly sliceMs: number;
  /** How often caller and helpers look between two looks at the clock, which leave garbage: some 6 us. */
  readonly looks: number;
}

/** The layout that caller and helpers agree on; helpers are told of it. */
export const LAYOUT: Layout = Object.freeze({
  slotBytes: 768,
  epoch: 0,
  callerSleeps: 1,
  kernel: 32,
  count: 33,
  argumentBytes: 136,
  mostArguments: 30,
  done: 96,
  helperSleeps: 97,
  failed: 98,
  textBytes: 512,
  mostLetters: 128,
  stop: -1,
  mostSpinMs: 0.3,
  leastSpinMs: 0.1,
  retry: 8,
  sliceMs: 1000,
  looks: 1024,
});

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
