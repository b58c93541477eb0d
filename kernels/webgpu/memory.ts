/** GPU memory: blocks from a pool, and borrowed ones. */

import { DeviceError } from "../../lib/errors.ts";
import type { Failures } from "./failures.ts";

/** WebGPU's flags by number: not every runtime has the global objects that name them. */
export const USAGE = {
  mapRead: 0x1,
  copySource: 0x4,
  copyTarget: 0x8,
  uniform: 0x40,
  storage: 0x80,
} as const;

/** What a block is for: arrays, parameters of kernels, or reading back. */
export type Purpose = "storage" | "uniform" | "readback";

const USAGES: Record<Purpose, number> = {
  storage: USAGE.storage | USAGE.copySource | USAGE.copyTarget,
  uniform: USAGE.uniform | USAGE.copyTarget,
  readback: USAGE.mapRead | USAGE.copyTarget,
};

/** A buffer, ours or borrowed. */
export interface Block {
  readonly id: number;
  readonly buffer: GPUBuffer;
  readonly bytes: number;
  readonly purpose: Purpose | "borrowed";
  /** Arrays that live in it. */
  owners: number;
}

/** Where blocks come from. */
export interface Memory {
  /** Whether a block of an array holds nothing else and is as long as the array, for owners who take whole buffers. */
  readonly exact: boolean;
  /** Gives a block of at least so many bytes; what is in it is undefined. */
  readonly allocate: (bytes: number, purpose: Purpose) => Block;
  /** Takes somebody else's buffer under this memory's care, which never destroys it. */
  readonly borrow: (buffer: GPUBuffer) => Block;
  /** Gives a block back; while a batch is open, its buffer is not used again before the batch is launched. */
  readonly release: (block: Block) => void;
  /** Marks a batch as open; returns what marks it as launched. */
  readonly hold: () => () => void;
  /** Destroys every block; borrowed ones are left to their owner. */
  readonly close: () => void;
}

/** How tests look into freed and fresh memory; without it blocks keep what is in them. */
export type OnBlock = (block: Block) => void;

const SMALLEST = 256;
/** Size classes per doubling: at most an eighth of a block is unused. */
const CLASSES = 8;
/**
 * Idle bytes at most, per byte that was in use at once: the phases of a training step need different sizes, each of
 * which is idle during the others. A few small blocks are not worth counting.
 */
const MOST_IDLE = 2;
const UNCOUNTED = 2 ** 22;

/**
 * Makes a memory over a device.
 *
 * Given-back blocks are used again for requests of their size class, the oldest buffer first, so that a training step
 * gets the blocks of the step before. At most twice as many bytes are kept idle as were in use at once; beyond that the
 * longest idle buffers are destroyed. `onDestroy` is called before a buffer is destroyed or handed back to its owner,
 * `onBlock` for every block that is handed out or given back.
 */
export function createMemory(
  gpuDevice: GPUDevice,
  failures: Failures,
  onDestroy: (block: Block) => void,
  { exact = false, onBlock = () => {} }: { readonly exact?: boolean; readonly onBlock?: OnBlock } =
    {},
): Memory {
  const idle = new Set<Block>(); // In the order in which they were given back.
  const shelves = new Map<string, Block[]>(); // The same by purpose and size, oldest buffer last.
  const live = new Set<Block>();
  const borrowed = new WeakMap<GPUBuffer, Block>();
  const withheld: Block[] = [];
  let [ids, open, inUse, mostInUse, idleBytes, closed] = [0, 0, 0, 0, 0, false];

  const shelf = (purpose: Block["purpose"], bytes: number): Block[] => {
    const key = `${purpose} ${bytes}`;
    const blocks = shelves.get(key) ?? [];
    shelves.set(key, blocks);
    return blocks;
  };
  const destroy = (block: Block): void => {
    onDestroy(block);
    block.buffer.destroy();
  };
  const evict = (block: Block): void => {
    idle.delete(block);
    idleBytes -= block.bytes;
    const blocks = shelf(block.purpose, block.bytes);
    blocks.splice(blocks.indexOf(block), 1);
    destroy(block);
  };
  const recycle = (block: Block): void => {
    if (block.purpose === "borrowed") {
      if (block.owners > 0) return; // Wrapped again meanwhile.
      borrowed.delete(block.buffer);
      return onDestroy(block);
    }
    if (closed) return destroy(block);
    onBlock(block);
    idle.add(block);
    idleBytes += block.bytes;
    const blocks = shelf(block.purpose, block.bytes);
    const older = blocks.findIndex(({ id }) => id < block.id);
    blocks.splice(older < 0 ? blocks.length : older, 0, block);
    for (const oldest of idle) {
      if (idleBytes <= MOST_IDLE * mostInUse + UNCOUNTED) break;
      evict(oldest);
    }
  };
  const create = (bytes: number, purpose: Purpose): Block => {
    const { maxBufferSize } = gpuDevice.limits;
    if (bytes > maxBufferSize) {
      throw new DeviceError(
        `Cannot make an array of ${bytes} bytes as a buffer of this GPUDevice holds at most ` +
          `${maxBufferSize}: request the adapter's maxBufferSize, or use smaller batches`,
        "outOfMemory",
      );
    }
    const buffer = failures.guard(
      `allocate ${bytes} bytes`,
      ["out-of-memory"],
      () => gpuDevice.createBuffer({ size: bytes, usage: USAGES[purpose], label: "syncbn" }),
    );
    return { id: ids++, buffer, bytes, purpose, owners: 0 };
  };
  const take = (bytes: number, purpose: Purpose): Block | undefined => {
    const block = shelf(purpose, bytes).pop();
    if (block) {
      idle.delete(block);
      idleBytes -= block.bytes;
    }
    return block;
  };

  return Object.freeze({
    exact,
    allocate: (bytes: number, purpose: Purpose): Block => {
      const wanted = exact && purpose === "storage"
        ? Math.max(4, bytes)
        : sizeClass(bytes, gpuDevice.limits.maxBufferSize);
      const block = take(wanted, purpose) ?? create(wanted, purpose);
      live.add(block);
      inUse += block.bytes;
      mostInUse = Math.max(mostInUse, inUse);
      onBlock(block);
      return block;
    },
    borrow: (buffer: GPUBuffer): Block => {
      const block = borrowed.get(buffer) ??
        { id: ids++, buffer, bytes: buffer.size, purpose: "borrowed", owners: 0 };
      borrowed.set(buffer, block);
      return block;
    },
    release: (block: Block): void => {
      if (block.purpose !== "borrowed") {
        if (!live.delete(block)) return; // Closed meanwhile.
        inUse -= block.bytes;
      }
      if (open > 0) withheld.push(block);
      else recycle(block);
    },
    hold: () => {
      open++;
      return () => {
        if (--open > 0) return;
        withheld.splice(0).forEach(recycle);
      };
    },
    close: () => {
      closed = true;
      for (const block of [...live, ...withheld, ...idle]) {
        if (block.purpose !== "borrowed") destroy(block);
      }
      live.clear();
      withheld.length = 0;
      idle.clear();
      shelves.clear();
    },
  });
}

/** The next size class, a multiple of 256. */
function sizeClass(bytes: number, most: number): number {
  const wanted = Math.max(SMALLEST, bytes);
  const step = Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(wanted)) / 2 / CLASSES);
  const size = Math.ceil(wanted / step) * step;
  // The last class may not exist; the request itself may.
  return size <= most ? size : Math.ceil(wanted / 4) * 4;
}
