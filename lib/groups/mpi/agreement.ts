/**
 * Whether all ranks are about to do the same: one small MAX reduction of what each wants and of its negative, after
 * which all ranks know alike.
 */

import type { Saying } from "../failures.ts";
import { hashOf } from "../sayings.ts";

/** How many float64 the reduction takes. */
export const OPINION_LENGTH = 7;

/** How many texts to keep the hashes of. */
const KEPT_HASHES = 1024;

/** Makes what writes and reads opinions, for one communicator. */
export function createAgreement() {
  const hashes = new Map<string, readonly [number, number]>();
  const hash = (text: string) => {
    const known = hashes.get(text);
    if (known) return known;
    if (hashes.size === KEPT_HASHES) hashes.clear();
    const made = hashOf(text);
    hashes.set(text, made);
    return made;
  };
  return {
    /** Writes this rank's opinion: what it calls, how many values it brings, whether it failed. */
    write: (opinion: Float64Array, { failed, text }: Saying, length: number): void => {
      const [high, low] = failed ? NOTHING : hash(text);
      opinion[0] = high;
      opinion[1] = low;
      opinion[2] = length;
      opinion[3] = -high;
      opinion[4] = -low;
      opinion[5] = -length;
      opinion[6] = failed ? 1 : 0;
    },
    /** Whether, after the reduction, all ranks said the same and none failed. */
    holds: (opinion: Float64Array): boolean =>
      opinion[6] === 0 && opinion[0] === -opinion[3] && opinion[1] === -opinion[4] &&
      opinion[2] === -opinion[5],
  };
}

const NOTHING = [0, 0] as const;
