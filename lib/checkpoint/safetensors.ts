/**
 * Reading and writing files of the safetensors format: bytes in, bytes out, without any permission.
 *
 * The format (https://huggingface.co/docs/safetensors, implementation 0.8.0): 8 bytes with the length of the header,
 * little-endian; the header, a JSON object that gives each tensor's dtype, shape and place; the data, little-endian,
 * side by side. Elements are copied as they lie in memory, so that the host must be little-endian too.
 */

import { DTYPES } from "./dtypes.ts";
import { checkStored, entriesOf } from "./given.ts";
import { LONGEST_HEADER, METADATA, readHeader } from "./safetensors/header.ts";
import type { StateDict, StoredArray } from "./stored_array.ts";
import { quote, wrongKind, wrongValue } from "../words.ts";

const ACTION = "write the safetensors file";

/** What a safetensors file holds. */
export interface Safetensors {
  /** Its tensors by name. */
  readonly tensors: StateDict;
  /** Texts that were stored along with them; empty where the file has none. */
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Reads a safetensors file, and believes nothing in it: sizes are checked against the bytes that are there before
 * anything is allocated, each byte of the data belongs to exactly one tensor, and time is linear in the file's length
 * but for sorting.
 *
 * Whatever this reads, the reference implementation (0.8.0) reads alike. It reads more: over 250,000 tensors; shapes of over 64 extents; a header
 * that begins with white space; names that occur twice, of which the last counts; unknown fields; `__metadata__` of null; an
 * entry that is a list of its three values; and extents up to 2^64 - 1 beside one that is 0.
 *
 * @param bytes the file; it is not changed, and may be a view of a part of a buffer
 * @returns a frozen record; tensors are in the order of their data, and those without data among others at the same
 * place first, in the header's order. Each array is a copy of its own; dtypes that nothing here computes with (I8, I16, U16
 * to U64, C64, F8 and narrower) come as their bytes.
 * @throws SafetensorsError where the file breaks the format or has a dtype that the format does not know, with the
 * byte where that was found; TypeError where `bytes` is no Uint8Array
 *
 * @example
 * ```ts
 * import { readSafetensors, writeSafetensors } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const weight = { dtype: "F32", shape: [2], data: Float32Array.of(1, 0.5) } as const;
 * const bytes = writeSafetensors({ weight }, { format: "pt" }); // Elsewhere: await Deno.readFile(...).
 * const { tensors, metadata } = readSafetensors(bytes);
 * assert.deepEqual(tensors.get("weight"), weight);
 * assert.equal(metadata.get("format"), "pt");
 * ```
 */
export function readSafetensors(bytes: Uint8Array): Safetensors {
  if (!(bytes instanceof Uint8Array)) {
    throw wrongKind("read the safetensors file", "bytes must be a Uint8Array", bytes);
  }
  const { entries, metadata, data } = readHeader(bytes);
  const tensors = new Map<string, StoredArray>();
  for (const { name, dtype, shape, begin, end } of entries) {
    // Not slice(): that of Node's Buffer gives a view.
    const copy = new Uint8Array(end - begin);
    copy.set(bytes.subarray(data + begin, data + end));
    const array = { dtype, shape, data: new (DTYPES.get(dtype)!.array)(copy.buffer) };
    tensors.set(name, Object.freeze(array) as StoredArray);
  }
  return Object.freeze({ tensors, metadata });
}

/**
 * Writes a safetensors file. The same tensors and metadata give the same bytes, whatever order they come in: those that
 * the reference implementation (0.8.0) writes, which for several metadata draws an order; here they are sorted.
 *
 * Wide elements come first (from U64 to BOOL, as in the reference implementation) and names ascend by code point, so that all arrays are
 * aligned. Metadata without entries are left out.
 *
 * @param tensors arrays by name; they are not changed. A name is any text but `__metadata__`, without lone surrogates.
 * @param metadata texts to store along with them; none by default
 * @returns a new array with the whole file
 * @throws TypeError or RangeError that names what does not belong: a dtype, an extent, data of another class or length,
 * a name, metadata that are no strings, or a header of over 100,000,000 bytes
 *
 * @example
 * ```ts
 * import { writeSafetensors } from "@syncbn/syncbn/checkpoint";
 * import assert from "node:assert/strict";
 *
 * const bias = { dtype: "F16", shape: [1], data: Uint16Array.of(0x3c00) } as const;
 * const bytes = writeSafetensors({ bias });
 * assert.match(
 *   new TextDecoder().decode(bytes.subarray(8)),
 *   /^{"bias":{"dtype":"F16","shape":\[1\],"data_offsets":\[0,2\]}} *\0<$/,
 * );
 * ```
 */
export function writeSafetensors(
  tensors: StateDict | Readonly<Record<string, StoredArray>>,
  metadata: ReadonlyMap<string, string> | Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const ranks = [...DTYPES.keys()];
  const pieces = piecesOf(tensors).sort((a, b) =>
    ranks.indexOf(a.dtype) - ranks.indexOf(b.dtype) || byCodePoint(a.name, b.name)
  );
  const texts = textsOf(metadata).sort(([a], [b]) => byCodePoint(a, b));
  const header = headerOf(pieces, texts);
  const size = pieces.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const file = new Uint8Array(8 + header.length + size);
  new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
  file.set(header, 8);
  let at = 8 + header.length;
  for (const { bytes } of pieces) {
    file.set(bytes, at);
    at += bytes.length;
  }
  return file;
}

/** A tensor that was checked, and the bytes of its elements. */
interface Piece {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** A view of the caller's array. */
  readonly bytes: Uint8Array;
}

function piecesOf(tensors: unknown): Piece[] {
  return entriesOf(tensors, "tensors", ACTION).map(([name, array]) => {
    checkText(name, "a tensor's name");
    if (name === METADATA) {
      throw wrongValue(ACTION, "a tensor must have another name than that of the metadata", name);
    }
    checkStored(array, `tensor ${quote(name)}`, ACTION);
    const { dtype, shape, data } = array;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { name, dtype, shape, bytes };
  });
}

function textsOf(metadata: unknown): [string, string][] {
  return entriesOf(metadata, "metadata", ACTION).map(([name, text]) => {
    checkText(name, "a name of the metadata");
    checkText(text, `metadata ${quote(name)}`);
    return [name, text];
  });
}

function checkText(text: unknown, what: string): asserts text is string {
  if (typeof text !== "string") {
    throw wrongKind(ACTION, `${what} must be a string`, text);
  }
  // UTF-8 cannot spell one.
  if (/\p{Surrogate}/u.test(text)) {
    throw wrongValue(ACTION, `${what} must have no lone surrogate`, text);
  }
}

function headerOf(
  pieces: readonly Piece[],
  texts: readonly (readonly [string, string])[],
): Uint8Array<ArrayBuffer> {
  // Spelled by hand, since a record would sort names that are integers and has no place for "__proto__".
  const object = (members: readonly (readonly [string, string])[]) =>
    `{${members.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}`;
  let end = 0;
  const tensors = pieces.map(({ name, dtype, shape, bytes }) => {
    const entry = { dtype, shape, data_offsets: [end, end += bytes.length] };
    return [name, JSON.stringify(entry)] as const;
  });
  const metadata = object(texts.map(([name, text]) => [name, JSON.stringify(text)]));
  const text = object([...texts.length > 0 ? [[METADATA, metadata] as const] : [], ...tensors]);
  const plain = new TextEncoder().encode(text);
  const header = new Uint8Array(Math.ceil(plain.length / 8) * 8).fill(0x20);
  if (header.length > LONGEST_HEADER) {
    const wanted = `its header must have at most ${LONGEST_HEADER} bytes`;
    throw wrongValue(ACTION, wanted, header.length);
  }
  header.set(plain);
  return header;
}

/** Orders well-formed texts as their UTF-8 is ordered; code units put surrogates before what stands above them. */
function byCodePoint(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  let at = 0;
  while (at < length && a[at] === b[at]) at++;
  if (at === length) return a.length - b.length;
  const [x, y] = [a.charCodeAt(at), b.charCodeAt(at)];
  const [high, low] = [isSurrogate(x), isSurrogate(y)];
  return high === low ? x - y : Number(high) - Number(low);
}

function isSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdfff;
}
