import assert from "node:assert/strict";
import { digest, fromWords, wordsOf } from "../lib/bits.ts";
import { uniforms } from "./random.ts";

Deno.test("digest() begins with MurmurHash3 x86 32", () => {
  const words = (text: string) => new Uint32Array(new TextEncoder().encode(text).buffer);
  assert.deepEqual(digest(new Uint32Array())[0], 0);
  assert.deepEqual(digest(words("test"))[0], 0xba6bd213);
  assert.deepEqual(digest(Uint32Array.of(0))[0], 0x2362f9de);
});

Deno.test("digest() changes in both words with every single bit, and with the length", () => {
  const uniform = uniforms(1);
  const words = Uint32Array.from({ length: 50 }, () => uniform() * 2 ** 32);
  const [a, b] = digest(words);
  const seen = new Set<string>();
  for (let at = 0; at < 50; at++) {
    for (let bit = 0; bit < 32; bit++) {
      const other = words.slice();
      other[at] ^= 2 ** bit;
      const [c, d] = digest(other);
      assert(c !== a && d !== b);
      seen.add(`${c} ${d}`);
    }
  }
  assert.equal(seen.size, 50 * 32);
  assert.notDeepEqual(digest(new Uint32Array(3)), digest(new Uint32Array(4)));
});

Deno.test("float32 values travel as words bit by bit", () => {
  const bits = [0x7fc01234, 0x7f812345, 0x80000000, 1, 0xffffffff];
  const values = fromWords(Float64Array.from(bits));
  assert.deepEqual([...wordsOf(values)], bits);
  assert.deepEqual([...wordsOf(values.subarray(2, 4))], bits.slice(2, 4));
});
