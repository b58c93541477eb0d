/** Numbers as the bits that they are: NaN and -0 travel and compare like all others. Half precision there and back. */

/** Looks at float32 values as words of 32 bits. */
export function wordsOf(values: Float32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

/** Makes float32 values of words that travelled as numbers. */
export function fromWords(words: Float64Array): Float32Array<ArrayBuffer> {
  return new Float32Array(Uint32Array.from(words).buffer);
}

const HALF_MIN_NORMAL = 2 ** -14;

/** Reads the bits of a half-precision number. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [bits >> 10 & 31, bits & 1023];
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign *
    (exponent === 0
      ? fraction * HALF_MIN_NORMAL / 1024
      : 2 ** (exponent - 15) * (1 + fraction / 1024));
}

/** Rounds a number to half precision, to the nearest and in ties to even. */
export function toHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(size || HALF_MIN_NORMAL)), -14);
  // A unit of the last place; adding 2^52 of it leaves whole units, rounded as IEEE 754 has it.
  const unit = 2 ** (exponent - 10);
  const large = unit * 2 ** 52;
  const units = (size + large - large) / unit;
  // Subnormals begin at 0 units, normals of the first exponent at 1024: carrying over is what the bits do themselves.
  return sign | (exponent + 14 << 10) + units;
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
