/**
 * The header of a safetensors file, believed in nothing: whatever it claims is checked against the bytes that are there
 * before anything is made of it.
 *
 * Entries may come in any order, as in the reference implementation; what counts is that the data are covered without
 * gap or overlap.
 */

import { countBytes, countElements, DTYPES } from "../dtypes.ts";
import type { StoredDType } from "../stored_array.ts";
import { listed, quote } from "../../words.ts";
import { SafetensorsError, type SafetensorsErrorCode } from "./error.ts";
import { lookOf } from "./signatures.ts";
import { type Refuse, scan, type Scanner } from "./scanner.ts";

/** Bytes that a header may have, as in the reference implementation. */
export const LONGEST_HEADER = 100_000_000;

/** Extents that a shape may have, as in PyTorch and NumPy: a list of millions is no shape. */
const MOST_EXTENTS = 64;

/** The name in a header that is no tensor's. */
export const METADATA = "__metadata__";

/** What the header says of one tensor. */
interface Entry {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
  /** Where the text gives these two. */
  readonly at: number;
}

/** Reads the header and checks it against the file, which its entries cover without gap, in the order of their data. */
export function readHeader(bytes: Uint8Array) {
  const data = 8 + headerLength(bytes);
  const text = decode(bytes.subarray(8, data));
  const refuse: Refuse = (wanted, came, at, code) =>
    fail(wanted, came, 8 + new TextEncoder().encode(text.slice(0, at)).length, code);
  const scanner = scan(text, refuse);
  const entries: Entry[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  const names = new Set<string>();
  scanner.members(() => "the header", (name, at) => {
    names.add(name);
    if (name === METADATA) metadata = readMetadata(scanner);
    else entries.push(readEntry(name, at, bytes.length - data, { scanner, refuse }));
  }, (name) => names.has(name));
  scanner.end("the header's object");
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  const covered = checkLayout(entries, refuse);
  if (covered < bytes.length - data) {
    const wanted = "the tensors must cover all data";
    fail(wanted, `${bytes.length - data - covered} bytes after the last`, data + covered);
  }
  return { entries, metadata, data };
}

function fail(
  wanted: string,
  came: string,
  byte: number,
  code: SafetensorsErrorCode = "malformed",
): never {
  throw new SafetensorsError(
    `Cannot read the safetensors file as ${wanted}: current value is ${came}, at byte ${byte}`,
    code,
    byte,
  );
}

function headerLength(bytes: Uint8Array): number {
  const refuse = (wanted: string, came: string, byte: number) =>
    fail(wanted, `${came}${lookOf(bytes)}`, byte);
  if (bytes.length < 8) {
    const wanted = "it must begin with 8 bytes that tell the header's length";
    refuse(wanted, `a file of ${bytes.length} bytes`, bytes.length);
  }
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length > LONGEST_HEADER) {
    refuse(`its header must have at most ${LONGEST_HEADER} bytes`, `${length}`, 0);
  }
  if (8 + Number(length) > bytes.length) {
    const wanted = `its header of ${length} bytes must lie within it`;
    refuse(wanted, `a file of ${bytes.length} bytes`, 0);
  }
  if (length === 0n) refuse('its header must begin with "{"', "no header", 8);
  if (bytes[8] !== 0x7b) refuse('its header must begin with "{"', hex(bytes[8]), 8);
  return Number(length);
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}

function decode(header: Uint8Array): string {
  try {
    // A copy: browsers decode no memory that is shared.
    return new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(header));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const at = firstInvalid(header);
    return fail("its header must be UTF-8", hex(header[at]), 8 + at);
  }
}

/** Where UTF-8 goes wrong: a decoder only tells that it does. */
function firstInvalid(header: Uint8Array): number {
  const mended = new TextEncoder().encode(new TextDecoder().decode(new Uint8Array(header)));
  let at = mended.findIndex((byte, i) => byte !== header[i]);
  // Where the replacement character shares its first bytes with what it replaces.
  while ((mended[at] & 0xc0) === 0x80) at--;
  return at;
}

function readMetadata(scanner: Scanner): ReadonlyMap<string, string> {
  const metadata = new Map<string, string>();
  const read = (name: string) => {
    metadata.set(name, scanner.string(() => `metadata ${quote(name)}`));
  };
  scanner.members(() => "the metadata", read, (name) => metadata.has(name));
  return metadata;
}

function readEntry(
  name: string,
  from: number,
  room: number,
  { scanner, refuse }: { readonly scanner: Scanner; readonly refuse: Refuse },
): Entry {
  const tensor = () => `tensor ${quote(name)}`;
  type Extents = readonly number[];
  const fields: { dtype?: string; shape?: Extents; data_offsets?: Extents } = {};
  const at = { dtype: from, shape: from, data_offsets: from };
  scanner.members(tensor, (field, start) => {
    if (field !== "dtype" && field !== "shape" && field !== "data_offsets") {
      const wanted = `${tensor()} must have no fields but dtype, shape and data_offsets`;
      return refuse(wanted, quote(field), start);
    }
    at[field] = scanner.position();
    const what = () => `the ${field} of ${tensor()}`;
    if (field === "dtype") fields.dtype = scanner.string(what);
    else fields[field] = Object.freeze(scanner.integers(what, MOST_EXTENTS));
  }, (field) => Object.hasOwn(fields, field));
  const { dtype, shape, data_offsets: offsets } = fields;
  if (dtype === undefined || shape === undefined || offsets === undefined) {
    const wanted = `${tensor()} must have the fields dtype, shape and data_offsets`;
    return refuse(wanted, Object.keys(fields).join(", ") || "none", from);
  }
  const elements = DTYPES.get(dtype);
  if (elements === undefined) {
    const wanted = `the dtype of ${tensor()} must be one of ${[...DTYPES.keys()].join(" ")}`;
    return refuse(wanted, quote(dtype), at.dtype, "unsupported");
  }
  const count = countElements(shape);
  if (count === Infinity) {
    const wanted = `the extents of ${tensor()} that are not 0 must have a product below 2^53`;
    refuse(wanted, listed(shape), at.shape);
  }
  const [begin, end] = offsets;
  if (offsets.length !== 2 || begin > end) {
    const wanted =
      `the data_offsets of ${tensor()} must be where its data begin and where they end`;
    refuse(wanted, listed(offsets), at.data_offsets);
  }
  const size = countBytes(count, elements);
  if (end - begin !== size) {
    const wanted = `${tensor()}, ${dtype} of shape ${listed(shape)}, must have ${size} bytes`;
    refuse(wanted, `${end - begin}`, at.data_offsets);
  }
  if (end > room) {
    refuse(`${tensor()} must end within the ${room} bytes of data`, `${end}`, at.data_offsets);
  }
  return { name, dtype: dtype as StoredDType, shape, begin, end, at: at.data_offsets };
}

/** Demands that the data of one tensor begin where those of the one before end, and returns where the last end. */
function checkLayout(entries: readonly Entry[], refuse: Refuse): number {
  let end = 0;
  for (const [i, entry] of entries.entries()) {
    if (entry.begin !== end) {
      const tensor = `tensor ${quote(entry.name)}`;
      const before = i > 0 ? `tensor ${quote(entries[i - 1].name)}` : null;
      const wanted = before === null
        ? `the data of ${tensor}, the first, must begin at 0`
        : entry.begin < end
        ? `${tensor} must not overlap ${before}, whose data end at ${end}`
        : `${tensor} must begin at ${end}, where the data of ${before} end`;
      refuse(wanted, `${entry.begin}`, entry.at);
    }
    end = entry.end;
  }
  return end;
}
