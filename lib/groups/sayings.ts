/** What ranks say of their calls, as bytes of one size, for when they do not agree. */

import { digest } from "../bits.ts";
import { CollectiveError } from "../errors.ts";
import type { Saying } from "./failures.ts";

const encoder = /* @__PURE__ */ new TextEncoder();

/** 64 bits of a text, as two integers; of its code units, as lone surrogates have no bytes of their own. */
export function hashOf(text: string): readonly [number, number] {
  return digest(Uint16Array.from({ length: text.length }, (_, i) => text.charCodeAt(i)));
}

/** Writes a saying. A text that is too long is cut, and told apart from others by its hash. */
export function encodeSaying(bytes: Uint8Array, { failed, text }: Saying): void {
  bytes.fill(0)[0] = failed ? 1 : 0;
  if (encoder.encodeInto(text, bytes.subarray(1)).read === text.length) return;
  const end = `... (${hashOf(text).map((half) => half.toString(16)).join("")})`;
  const room = bytes.subarray(1, bytes.length - end.length).fill(0);
  const { written } = encoder.encodeInto(text, room);
  encoder.encodeInto(end, bytes.subarray(1 + written).fill(0));
}

/** Reads a saying. */
export function decodeSaying(bytes: Uint8Array): Saying {
  const end = bytes.indexOf(0, 1);
  const text = new TextDecoder().decode(bytes.subarray(1, end < 0 ? bytes.length : end));
  return { failed: bytes[0] === 1, text };
}

/** The error of ranks whose texts differ by their hashes, and read alike. */
export function unseenError(call: number, sayings: readonly Saying[]): CollectiveError {
  return new CollectiveError(
    `Cannot complete call ${call} as the ranks disagree in characters that do not show: ` +
      `rank 0 called ${sayings[0].text}`,
    "disagreement",
    [...sayings.keys()],
  );
}
