/**
 * Lists of numbers as one.
 *
 * @module
 */

/** Writes lists into an array that has room for all, one after the other. */
export function joined<T extends Float32Array | Float64Array>(
  into: T,
  parts: Iterable<ArrayLike<number>>,
): T {
  let at = 0;
  for (const part of parts) {
    into.set(part, at);
    at += part.length;
  }
  return into;
}
