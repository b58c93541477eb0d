/** Numbers as the bits that they are: NaN and -0 travel and compare like all others. */

/** Looks at float32 values as words of 32 bits. */
export function wordsOf(values: Float32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

/** Makes float32 values of words that travelled as numbers. */
export function fromWords(words: Float64Array): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint32Array.from(words).buffer);
}

/** Constants of the body: two multipliers, rotations of the word and of the state, step, first state. */
type Lane = readonly [number, number, number, number, number, number];

/** MurmurHash3 x86 32, and a second one with constants of x86 128 (Appleby 2011). */
const LANES: readonly [Lane, Lane] = [
  [0xcc9e2d51, 0x1b873593, 15, 13, 0xe6546b64, 0],
  [0x239b961b, 0xab0e9789, 16, 19, 0x561ccd1b, 0x9747b28c],
];

/**
 * Condenses words into two of 32 bits.
 *
 * Every step is a bijection of the state for a given word, and of the word for a given state: sequences of one length
 * that differ in a single word never have the same digest. Others have it by chance once in 2^64.
 */
export function digest(words: ArrayLike<number>): readonly [number, number] {
  const [a, b] = LANES.map((lane) => condense(words, lane));
  return [a, b];
}

function condense(words: ArrayLike<number>, [c1, c2, r1, r2, step, first]: Lane): number {
  let state = first;
  for (let i = 0; i < words.length; i++) {
    state ^= Math.imul(rotate(Math.imul(words[i], c1), r1), c2);
    state = Math.imul(rotate(state, r2), 5) + step | 0;
  }
  state ^= 4 * words.length;
  state = Math.imul(state ^ state >>> 16, 0x85ebca6b);
  state = Math.imul(state ^ state >>> 13, 0xc2b2ae35);
  return (state ^ state >>> 16) >>> 0;
}

function rotate(word: number, by: number): number {
  return word << by | word >>> 32 - by;
}
