/** What the suites in Node are told, and what they tell. Types only. */

/** What is run. */
export interface Plan {
  /** Every kind of group, and PyTorch's numbers on Wasm; or what every change is tried with. */
  readonly everything: boolean;
  /** The module of Dawn, for WebGPU. */
  readonly dawn?: string;
}

/** What came of a test. */
export interface Outcome {
  readonly name: string;
  readonly ms: number;
  /** Null where it passed. */
  readonly error: string | null;
}
