/** What `measured.json` holds. */

export interface GroupRow {
  /** Whose it is: program, library and kind of call; a fold has 1 rank. */
  readonly subject: string;
  readonly ranks: number;
  /** Number of float64 that every rank gives and gets. */
  readonly length: number;
  /** Microseconds per call on the slowest rank: median and fastest of the rounds. */
  readonly microseconds: { readonly median: number; readonly fastest: number };
}

export interface MissingPeer {
  readonly subject: string;
  readonly ranks: number;
  readonly missing: string;
}

/** A training step, all ranks together, in ms: with batch norm over each rank's own images, and over those of all. */
export interface StepTimes {
  readonly local: number;
  readonly sync: number;
}

export interface StepRow extends StepTimes {
  readonly group: string;
  readonly ranks: number;
}

export interface Measured {
  readonly date: string;
  readonly machine: string;
  readonly versions: readonly string[];
  readonly rows: readonly GroupRow[];
  readonly missing?: readonly MissingPeer[];
  readonly steps?: readonly StepRow[];
}

/** How much is done: rounds of which the median counts, and what a round takes at least. */
export interface Effort {
  readonly rounds: number;
  readonly milliseconds: number;
}

/** The forward wire 2C + 1 of 64, 512, 4096 and 65,536 channels. */
export const LENGTHS = [129, 1025, 8193, 131073] as const;
/** A length that only the unchecked engines are timed with: that of an agreement. */
export const AGREEMENT_LENGTH = 10;

export const nameOf = (engine: string, combine: string): string => `syncbn, ${engine}, ${combine}`;
export const foldSubject = (combine: string): string => `${combine}, one fold`;
