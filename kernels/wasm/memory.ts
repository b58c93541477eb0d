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
 * step before. Where there is none, neighbours are joined and the lowest span that suffices is split; only then the
 * memory grows, which never moves what is in it.
 */
export function createMemory(memory: WebAssembly.Memory): Memory {
  const shelves = new Map<number, number[]>(); // Addresses of idle blocks, by size.
  const spans = createSpans(); // Idle memory that is no block any more.
  let end = FIRST; // Everything from here on was never used.
  let colour = FIRST; // Where in a page the next large block should begin.

  /** Takes the blocks off their shelves and joins what touches. */
  const join = (): void => {
    for (const [bytes, addresses] of shelves) {
      for (const address of addresses) spans.add(address, bytes);
    }
    shelves.clear();
    end = spans.takeBefore(end);
  };
  const reach = (address: number, bytes: number): void => {
    if (address > LAST) throw outOfMemory(memory, bytes);
    const needed = Math.ceil((address - memory.buffer.byteLength) / PAGE);
    if (needed > 0) grow(memory, needed, bytes);
  };
  /** Skips some lines, which small blocks may have, so that a large block begins elsewhere in its page than the last. */
  const shift = (bytes: number): void => {
    const gap = (colour - end % COLOURS + COLOURS) % COLOURS;
    colour = (colour + SHIFT) % COLOURS;
    if (gap === 0) return;
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

  return Object.freeze<Memory>({
    allocate: (bytes) => {
      const wanted = sizeOf(bytes);
      const idle = shelves.get(wanted)?.pop();
      if (idle !== undefined) return idle;
      join();
      return spans.take(wanted) ?? extend(wanted);
    },
    release: (address, bytes) => {
      const size = sizeOf(bytes);
      const shelf = shelves.get(size);
      if (shelf) shelf.push(address);
      else shelves.set(size, [address]);
    },
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
