/** How values can travel where one thread has those of all ranks. Types only. */

import type { Flow } from "./engine.ts";

/** How values can travel where one thread has those of all ranks. */
export type LocalFlow =
  | Flow
  /** `shares`: of every rank's array the part of this rank, in rank order; equal parts, or nearly. */
  | { readonly kind: "scatter" }
  /** `[values]` of one rank for one other. */
  | { readonly kind: "send"; readonly from: number; readonly to: number };
