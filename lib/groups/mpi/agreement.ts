/**
 * Whether all ranks are about to do the same: one small MAX reduction of what each wants and of its negative, after
 * which all ranks know alike; and the texts, for when they are not.
 */

import type { Saying } from "../failures.ts";

/** How many float64 the reduction takes. */
export const OPINION_LENGTH = 7;

/** How many bytes of its text a rank may send. */
export const SAYING_BYTES = 1024;

/** How many texts to keep the hashes of. */
const KEPT_HASHES = 1024;

/** What this rank has to say, in the two lengths. */
export interface Agreement {
  /** Writes this rank's opinion: what it calls, how many values it brings, whether it failed. */
  readonly write: (opinion: Float64Array, saying: Saying, length: number) => void;
  /** Whether, after the reduction, all ranks said the same and none failed. */
  readonly holds: (opinion: Float64Array) => boolean;
}

/** Makes what writes and reads opinions, for one communicator. */
export function createAgreement(): Agreement {
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
    write: (opinion, { failed, text }, length) => {
      const [high, low] = failed ? NOTHING : hash(text);
      opinion[0] = high;
      opinion[1] = low;
      opinion[2] = length;
      opinion[3] = -high;
      opinion[4] = -low;
      opinion[5] = -length;
      opinion[6] = failed ? 1 : 0;
    },
    holds: (opinion) =>
      opinion[6] === 0 && opinion[0] === -opinion[3] && opinion[1] === -opinion[4] &&
      opinion[2] === -opinion[5],
  };
}

const NOTHING = [0, 0] as const;

/** Writes what a rank says as bytes. A text that is too long is cut, and told apart from others by its hash. */
export function encodeSaying(bytes: Uint8Array, { failed, text }: Saying): void {
  bytes[0] = failed ? 1 : 0;
  const encoder = new TextEncoder();
  if (encoder.encodeInto(text, bytes.subarray(1)).read === text.length) return;
  const end = `... (${hashOf(text).map((half) => half.toString(16)).join("")})`;
  const room = bytes.subarray(1, bytes.length - end.length).fill(0);
  const { written } = encoder.encodeInto(text, room);
  encoder.encodeInto(end, bytes.subarray(1 + written).fill(0));
}

/** Reads what all ranks say. */
export function decodeSayings(bytes: Uint8Array): readonly Saying[] {
  const decoder = new TextDecoder();
  return Array.from({ length: bytes.length / SAYING_BYTES }, (_, rank) => {
    const own = bytes.subarray(rank * SAYING_BYTES, (rank + 1) * SAYING_BYTES);
    const end = own.indexOf(0, 1);
    return {
      failed: own[0] === 1,
      text: decoder.decode(own.subarray(1, end < 0 ? own.length : end)),
    };
  });
}

/** 64 bits of a text, as two integers: two chains of multiplications by odd numbers, mixed at the end. */
function hashOf(text: string): readonly [number, number] {
  let [high, low] = [0x9e3779b9, 0x85ebca6b];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    high = Math.imul(high ^ code, 0x2c1b3c6d);
    low = Math.imul(low ^ code, 0x297a2d39);
  }
  return [mix(high ^ (low >>> 15)), mix(low ^ (high >>> 13))];
}

function mix(value: number): number {
  const once = Math.imul(value ^ (value >>> 16), 0x21f0aaad);
  const twice = Math.imul(once ^ (once >>> 15), 0x735a2d97);
  return (twice ^ (twice >>> 15)) >>> 0;
}
