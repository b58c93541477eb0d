/** The check of a weight in an average. */

import { wrongValue } from "./words.ts";

/** Checks a weight in an average: a RangeError says what came, and what else might have. */
export function checkShare(share: number, name: string, action: string, others = ""): void {
  if (typeof share === "number" && share >= 0 && share <= 1) return;
  throw wrongValue(action, `${name} must be in [0, 1]${others}`, share);
}
