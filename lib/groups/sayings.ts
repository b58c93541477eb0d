/** What ranks say of their calls, as bytes of one size, for when they do not agree. */

import { digest } from "../bits.ts";
import type { Saying } from "./failures.ts";

const encoder = new TextEncoder();

/** 64 bits of a text, as two integers. */
export function hashOf(text: string): readonly [number, number] {
  return digest(encoder.encode(text));
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
