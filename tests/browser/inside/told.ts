/** What a page sends home. */

/** What came of one test. */
export interface Told {
  readonly kind: "test";
  readonly name: string;
  readonly outcome: "passed" | "failed" | "ignored";
  /** How long it took, in ms. */
  readonly ms: number;
  /** Of one that failed: what was thrown, with its stack. */
  readonly error?: string;
}

/** A message of the page. */
export type Said =
  | Told
  /** All tests have been run. */
  | { readonly kind: "done" }
  /** There will be no more tests. */
  | { readonly kind: "broken"; readonly reason: string };
