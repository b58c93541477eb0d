/**
 * Both builds of the kernels as one array: they are nearly the same, so a compressor that sees a block of one right after
 * that of the other writes it as a copy.
 */

/** Bytes of a block; two of them lie well within the 32 KiB that deflate looks back. */
const BLOCK = 4096;

/** How many bytes of each array, one after the other, a block has. */
function* blocks(
  lengths: readonly number[],
): Generator<readonly [which: number, from: number, to: number]> {
  for (let from = 0; from < Math.max(...lengths); from += BLOCK) {
    for (const [which, length] of lengths.entries()) {
      if (from < length) yield [which, from, Math.min(from + BLOCK, length)];
    }
  }
}

/** Lays arrays side by side, block by block. */
export function interleave(arrays: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const lengths = arrays.map(({ length }) => length);
  const all = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  for (const [which, from, to] of blocks(lengths)) {
    all.set(arrays[which].subarray(from, to), at);
    at += to - from;
  }
  return all;
}

/** Takes one of them out again. */
export function takeApart(
  all: Uint8Array,
  lengths: readonly number[],
  wanted: number,
): Uint8Array<ArrayBuffer> {
  const one = new Uint8Array(lengths[wanted]);
  let at = 0;
  for (const [which, from, to] of blocks(lengths)) {
    if (which === wanted) one.set(all.subarray(at, at + to - from), from);
    at += to - from;
  }
  return one;
}
