/** Blocks of a Wasm memory: given out, given back, used again. */

import { DeviceError } from "../../lib/errors.ts";
import { createSpans } from "./spans.ts";

/** Where blocks come from. Addresses and sizes are bytes. */
export interface Memory {
  /** Gives a block, aligned to a cache line; what is in it is undefined. */
  readonly allocate: (bytes: number) => number;
  /** Gives a block back, by its address and the bytes that were asked for. */
  readonly release: (address: number, bytes: number) => void;
  /** The memory as it is now: a local one is another buffer after it has grown. */
  readonly buffer: () => ArrayBuffer;
}

/** Bytes of a page of Wasm memory. */
export const PAGE = 65_536;
/** Pages that 32-bit addresses reach: 4 GiB. */
export const MOST_PAGES = 65_536;

const LINE = 64;
/** What small blocks, of less than a page, are cut from. */
const PIECES = 2 * PAGE;
/** No array lies at address 0, which kernels take for "none". */
const FIRST = LINE;
/**
 * Kernels walk several tensors at once. Those that begin at the same line of a page are in each other's way: a cache keeps
 * few lines of one offset. (8 rows of [392, 2048]: 0.61 instead of 0.47 ms for a training step.)
 */
const COLOURS = 4096;
/** By how much a block is shifted against the one before: 13 lines, so that a page has room for 64 colours. */
const SHIFT = 13 * LINE;
/** No block ends where the address after it would be 2^32, which is 0: kernels compare with it. */
const LAST = MOST_PAGES * PAGE - LINE;

/**
 * Makes an allocator over a memory that nobody else writes.
 *
 * A block that is given back serves the next request of its size at once, so that a training step gets the blocks of the
 * step before. Where there is none, a small block is cut from pieces set aside for such, so that steps soon find one of every
 * size; for a large one neighbours are joined and the lowest span that suffices is split, as that may be in a cache still.
 * Only where all idle memory, joined, does not suffice the memory grows, which never moves what is in it.
 */
export function createMemory(memory: WebAssembly.Memory): Memory {
  const shelves = new Map<number, number[]>(); // Addresses of idle blocks, by size.
  const spans = createSpans(); // Idle memory that is no block any more.
  let end = FIRST; // Everything from here on was never used.
  let colour = FIRST; // Where in a page the next large block should begin.
  let pieces = { from: 0, to: 0 }; // What small blocks are cut from.

  const shelve = (address: number, size: number): void => {
    const shelf = shelves.get(size);
    if (shelf) shelf.push(address);
    else shelves.set(size, [address]);
  };
  /** Sets other pieces aside. */
  const setAside = (from: number, to: number): void => {
    if (pieces.from < pieces.to) shelve(pieces.from, pieces.to - pieces.from);
    pieces = { from, to };
  };
  /** Takes blocks of so many bytes or more off their shelves and joins what touches. */
  const join = (least: number): void => {
    for (const [bytes, addresses] of shelves) {
      if (bytes < least) continue;
      for (const address of addresses) spans.add(address, bytes);
      shelves.delete(bytes);
    }
    end = spans.takeBefore(end);
  };
  const isThere = (bytes: number): boolean => end + bytes <= memory.buffer.byteLength;
  const reach = (address: number, bytes: number): void => {
    if (address > LAST) throw outOfMemory(memory, bytes);
    const needed = Math.ceil((address - memory.buffer.byteLength) / PAGE);
    if (needed > 0) grow(memory, needed, bytes);
  };
  /** Skips some lines, so that a large block begins elsewhere in its page than the last; where memory is short, small ones get them. */
  const shift = (bytes: number): void => {
    const gap = (colour - end % COLOURS + COLOURS) % COLOURS;
    colour = (colour + SHIFT) % COLOURS;
    if (gap === 0 || isThere(bytes) && !isThere(gap + bytes)) return;
    try {
      reach(end + gap + bytes, bytes);
    } catch {
      return; // Where memory is that short, every line counts.
    }
    spans.add(end, gap);
    end += gap;
  };
  const extend = (bytes: number): number => {
    if (bytes >= PAGE) shift(bytes);
    reach(end + bytes, bytes);
    const address = end;
    end += bytes;
    return address;
  };
  /** Memory that is there already; undefined where there is not as much in one place. */
  const find = (bytes: number): number | undefined => {
    const idle = spans.take(bytes);
    if (idle !== undefined) return idle;
    return isThere(bytes) ? extend(bytes) : undefined;
  };
  /** Of all that is idle, or more memory. */
  const findOrGrow = (bytes: number): number => {
    setAside(0, 0);
    join(0);
    return find(bytes) ?? extend(bytes);
  };
  /** A small block. */
  const cut = (bytes: number): number => {
    if (pieces.to - pieces.from < bytes) {
      join(PAGE);
      const found = find(PIECES);
      if (found === undefined) return findOrGrow(bytes);
      setAside(found, found + PIECES);
    }
    const { from } = pieces;
    pieces.from += bytes;
    return from;
  };

  return Object.freeze<Memory>({
    allocate: (bytes) => {
      const wanted = sizeOf(bytes);
      const idle = shelves.get(wanted)?.pop();
      if (idle !== undefined) return idle;
      if (wanted < PAGE) return cut(wanted);
      join(PAGE);
      return find(wanted) ?? findOrGrow(wanted);
    },
    release: (address, bytes) => shelve(address, sizeOf(bytes)),
    // The type of a shared memory's buffer is another; typed arrays read both.
    buffer: () => memory.buffer as ArrayBuffer,
  });
}

/** Bytes of a block: whole lines. */
function sizeOf(bytes: number): number {
  return Math.max(LINE, Math.ceil(bytes / LINE) * LINE);
}

/** Grows the memory by an eighth or by what is needed, whichever is more, or else by what is needed. */
function grow(memory: WebAssembly.Memory, needed: number, bytes: number): void {
  const before = memory.buffer.byteLength;
  for (const pages of [Math.max(needed, Math.ceil(before / PAGE / 8)), needed]) {
    try {
      memory.grow(pages);
      return;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }
  throw outOfMemory(memory, bytes);
}

function outOfMemory({ buffer }: WebAssembly.Memory, bytes: number): DeviceError {
  return new DeviceError(
    `Cannot make an array of ${bytes} bytes as this device's memory must not grow past its ` +
      `maximum, or the machine has no more: current size is ${buffer.byteLength} bytes; free ` +
      "arrays, use smaller batches, or open the device with a larger maximumBytes (at most 4 GiB)",
    "outOfMemory",
  );
}
