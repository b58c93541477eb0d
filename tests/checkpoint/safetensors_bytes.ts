/** Files of the safetensors format for tests: put together by hand, read from the golden folder, compared bit by bit. */

import assert from "node:assert/strict";
import type { Safetensors, StoredArray } from "../../lib/checkpoint.ts";

/** A file of any header and data; `length` is what it says of its header's length. */
export function fileOf(
  header: string | Uint8Array,
  data: Uint8Array = new Uint8Array(),
  length?: bigint,
): Uint8Array<ArrayBuffer> {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + text.length + data.length);
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  file.set(text, 8);
  file.set(data, 8 + text.length);
  return file;
}

/** A file of the golden folder and what Python says it holds. */
export interface Golden {
  readonly file: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Whether Python's writer made it. */
  readonly canonical: boolean;
  readonly metadata: readonly { readonly name: string; readonly text: string }[];
  readonly tensors: readonly Described[];
}

/** A tensor in words that need no safetensors: `2x3` for its shape, hexadecimal for its bytes. */
export interface Described {
  readonly name: string;
  readonly dtype: string;
  readonly shape: string;
  readonly bytes: string;
}

/** All files that golden/safetensors_files.py makes. */
export function goldens(): readonly Golden[] {
  const at = (name: string) => new URL(`golden/${name}`, import.meta.url);
  const { files } = JSON.parse(Deno.readTextFileSync(at("safetensors_files.json")));
  return files.map((golden: Golden) => ({ ...golden, bytes: Deno.readFileSync(at(golden.file)) }));
}

/** The bytes of an array's elements. */
export function bytesOf({ data }: StoredArray): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Describes an array as the golden files' descriptions do. */
export function describe(name: string, array: StoredArray): Described {
  const bytes = Array.from(bytesOf(array), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { name, dtype: array.dtype, shape: array.shape.join("x"), bytes };
}

/** Demands the same names, dtypes, shapes, bits and metadata, in whatever order. */
export function assertSame(actual: Safetensors, wanted: Safetensors): void {
  assert.equal(actual.tensors.size, wanted.tensors.size);
  for (const [name, array] of wanted.tensors) {
    const found = actual.tensors.get(name);
    assert(found !== undefined, `${JSON.stringify(name)} is missing`);
    assert.equal(found.dtype, array.dtype);
    assert.equal(found.data.constructor, array.data.constructor);
    assert.deepEqual(found.shape, array.shape);
    assert.deepEqual(Array.from(bytesOf(found)), Array.from(bytesOf(array)));
  }
  assert.deepEqual(actual.metadata, wanted.metadata);
}
