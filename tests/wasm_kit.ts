/** Wasm devices as the suites see them: every block between guard zones, and full of NaN wherever nobody has written. */

import { type DeviceKit, type Kit, register } from "./kit.ts";
import { inTier, isRun } from "./tier.ts";
import type { WasmArray, WasmDevice, WasmOptions } from "../kernels/wasm_device.ts";
import type { Build } from "../kernels/wasm/binary.ts";
import { createDevice } from "../kernels/wasm/device.ts";
import type { Memory } from "../kernels/wasm/memory.ts";

/** Bytes before and after every block that nobody may touch; as float32 a number that spoils every sum. */
const GUARD = 256;
const GUARD_BYTE = 0xfe;
/** As float32, float16 and float64 a NaN. */
const POISON = 0xff;

/** What a guarded memory knows. */
export interface Guarded {
  /** Throws where a guard zone was written, and says whose. */
  readonly check: () => void;
  /** The same of blocks that were given out since it was called last: what a test leaves behind is looked at once. */
  readonly checkNew: () => void;
  /** Bytes in use, without guard zones. */
  readonly inUse: () => number;
  /** Blocks in use: those of arrays, and one of scratch memory once an operation has needed any. */
  readonly blocks: () => number;
}

/** Puts guard zones around every block of a memory, and NaN into it whenever it is given out or given back. */
export function guard(memory: Memory): { readonly memory: Memory; readonly guarded: Guarded } {
  const blocks = new Map<number, number>();
  const unchecked = new Set<number>();
  const fill = (address: number, bytes: number, byte: number): void => {
    new Uint8Array(memory.buffer(), address, bytes).fill(byte);
  };
  const checkZone = (address: number, block: number): void => {
    const zone = new Uint8Array(memory.buffer(), address, GUARD);
    for (let at = 0; at < GUARD; at++) {
      if (zone[at] === GUARD_BYTE) continue;
      throw new Error(
        `byte ${address + at - block} of a block of ${blocks.get(block)} was written`,
      );
    }
  };
  const checkBlock = (block: number): void => {
    checkZone(block - GUARD, block);
    checkZone(block + blocks.get(block)!, block);
  };
  return {
    memory: {
      buffer: memory.buffer,
      allocate: (bytes) => {
        const block = memory.allocate(bytes + 2 * GUARD) + GUARD;
        blocks.set(block, bytes);
        unchecked.add(block);
        fill(block - GUARD, GUARD, GUARD_BYTE);
        fill(block, bytes, POISON);
        fill(block + bytes, GUARD, GUARD_BYTE);
        return block;
      },
      release: (block, bytes) => {
        const given = blocks.get(block);
        if (given !== bytes) {
          throw new Error(`a block of ${given} at ${block} was given back as one of ${bytes}`);
        }
        checkBlock(block);
        fill(block, bytes, POISON);
        blocks.delete(block);
        unchecked.delete(block);
        memory.release(block - GUARD, bytes + 2 * GUARD);
      },
    },
    guarded: {
      check: () => [...blocks.keys()].forEach(checkBlock),
      checkNew: () => {
        const recent = [...unchecked];
        unchecked.clear();
        recent.forEach(checkBlock);
      },
      inUse: () => [...blocks.values()].reduce((total, bytes) => total + bytes, 0),
      blocks: () => blocks.size,
    },
  };
}

/** How to open a handle for a test. */
export interface Opening {
  readonly options?: WasmOptions;
  readonly build?: Build;
  /** Elements that are worth a thread: as many as make a part, so that small tensors are shared out too. */
  readonly least?: number;
  /** Stands between the guard and the memory, as a memory that fails does. */
  readonly beneath?: (memory: Memory) => Memory;
  /** Stands between the device and the guard, as a device that asks for too little does. */
  readonly beyond?: (memory: Memory) => Memory;
}

/** Opens a handle on guarded memory; `close` checks every zone that is left. */
export async function openWasm(
  { options = {}, build, least, beneath = (memory) => memory, beyond = (memory) => memory }:
    Opening,
): Promise<{
  readonly device: WasmDevice;
  readonly guarded: Guarded;
  readonly close: () => Promise<void>;
}> {
  let guarded: Guarded | undefined;
  const device = await createDevice(options, {
    ...(build && { build }),
    ...(least && { least }),
    around: (inner) => {
      const made = guard(beneath(inner));
      guarded = made.guarded;
      return beyond(made.memory);
    },
  });
  const close = async (): Promise<void> => {
    await device[Symbol.asyncDispose]();
    guarded!.check();
  };
  return { device, guarded: guarded!, close };
}

/** A kit of such handles. */
export function wasmKit(name: string, opening: Opening): DeviceKit<WasmArray> {
  return {
    name,
    open: () => openWasm(opening),
    // Statistics are exact; of the roundings of a result, those of a difference, two products and two sums remain.
    ulps: 4,
    nonFinite: true,
    subnormals: true,
    arithmetic: "float32",
    cases: 100,
  };
}

/**
 * A kit of one handle for all tests, where starting threads takes a while. The last test must be that of `closing`, which
 * looks at every zone that is left once more.
 */
export async function sharedWasmKit(
  name: string,
  { tier, ...opening }: Opening & Pick<Kit, "tier">,
): Promise<{
  readonly kit: DeviceKit<WasmArray>;
  readonly closing: (name: string) => void;
}> {
  // Nothing is opened for tests that are only counted.
  const opened = isRun(tier) ? await openWasm(opening) : null;
  const kit: DeviceKit<WasmArray> = {
    ...wasmKit(name, opening),
    ...(tier && { tier }),
    open: () => {
      const { device, guarded } = opened!;
      return Promise.resolve({ device, close: () => Promise.resolve(guarded.checkNew()) });
    },
  };
  return {
    kit,
    closing: (name) => inTier(kit, (kit) => register(kit, name, async () => await opened?.close())),
  };
}
