/** Arrays of a Wasm device: opaque handles, and what stands behind them. */

import type { ArrayInfo, DType } from "../../lib/tensor.ts";
import type { WireFormat } from "../../lib/wire.ts";
import type { Memory } from "./memory.ts";

/** An array of a Wasm device. Opaque: read it with the device's `download`, or look at it with `view`. */
export interface WasmArray {
  /** Sets it apart from the arrays of other kinds of device, for the type checker. */
  readonly device: "wasm";
  /** The elements where they lie, as long as the array is alive; see `view`. */
  readonly elements: () => Float32Array | Float16Array;
}

/** Elements of a tensor or a vector. */
export interface Elements {
  readonly kind: "elements";
  readonly length: number;
  readonly dtype: DType;
}

/** Moments or gradient sums of a batch, as they travel: float64. */
export interface Statistic {
  readonly kind: WireFormat["name"];
  readonly length: number;
  /** float64 numbers behind it that are made of it; none by default. */
  readonly room?: number;
}

/** What an array holds. */
export type Contents = Elements | Statistic;

/** The contents of a kind. */
type ContentsOf<K extends Contents["kind"]> = K extends "elements" ? Elements : Statistic;

/** A block of memory, which two arrays share while the older one is given up. */
export interface Block {
  readonly address: number;
  readonly bytes: number;
  owners: number;
}

/** What stands behind a live array. */
export interface Slot<C extends Contents = Contents> {
  readonly address: number;
  readonly block: Block;
  readonly contents: C;
}

/** The arrays of one device. */
export interface Arrays {
  /** Makes an array in a new block. */
  readonly make: <C extends Contents>(
    contents: C,
  ) => { readonly array: WasmArray; readonly slot: Slot<C> };
  /** Makes an array in the block of another, which is about to be freed. */
  readonly over: (slot: Slot<Elements>, contents: Elements) => {
    readonly array: WasmArray;
    readonly slot: Slot<Elements>;
  };
  /** Makes an array in the block of another, so many bytes from where that begins. */
  readonly within: (slot: Slot<Elements>, offset: number, contents: Elements) => {
    readonly array: WasmArray;
    readonly slot: Slot<Elements>;
  };
  /** Looks an array up. */
  readonly slot: <K extends Contents["kind"]>(
    array: WasmArray,
    kind: K,
  ) => Slot<ContentsOf<K>>;
  /** The same, of whatever kind it is. */
  readonly look: (array: WasmArray) => Slot;
  readonly free: (...arrays: WasmArray[]) => void;
  /** What an array holds. */
  readonly contents: (array: WasmArray) => Contents;
  readonly owns: (value: unknown) => value is WasmArray;
  readonly describe: (array: WasmArray) => ArrayInfo;
  /**
   * How many arrays are not freed, and how many of them at least the garbage collector has taken: nobody can free those any
   * more.
   */
  readonly census: () => { readonly alive: number; readonly lost: number };
}

/**
 * Live arrays from which on the garbage collector tells of further ones that it takes: a loop that forgets to free has as many
 * soon, and to follow all would be a tenth of a small call.
 */
const MANY = 1000;

/** What the arrays of a device have in common. */
interface Registry {
  readonly view: (array: WasmArray) => Float32Array | Float16Array;
}

/**
 * An array, with what stands behind it inside: to look that up in a WeakMap is slower, and each of its entries is work for the
 * garbage collector.
 */
class Handle implements WasmArray {
  readonly #registry: Registry;
  /** null once freed. */
  #slot: Slot | null;

  constructor(registry: Registry, slot: Slot) {
    this.#registry = registry;
    this.#slot = slot;
  }

  get device(): "wasm" {
    return "wasm";
  }

  elements(): Float32Array | Float16Array {
    return this.#registry.view(this);
  }

  /** What stands behind a value; null behind a freed array, undefined behind what is none of the registry's. */
  static slot(value: unknown, registry: Registry): Slot | null | undefined {
    if (typeof value !== "object" || value === null || !(#slot in value)) return undefined;
    return value.#registry === registry ? value.#slot : undefined;
  }

  /** Forgets what stands behind an array. */
  static end(array: WasmArray): void {
    if (#slot in array) array.#slot = null;
  }
}
Object.freeze(Handle.prototype); // An array has nothing of its own, so that nothing of it can be changed.

/** Makes the registry of a device's arrays. */
export function createArrays(
  memory: Memory,
  elementsOf: (slot: Slot<Elements>) => Float32Array | Float16Array,
): Arrays {
  const registry: Registry = { view: (array) => elementsOf(slot(array, "elements")) };
  let [made, freed, lost] = [0, 0, 0];
  const followed = new FinalizationRegistry<Block>(({ owners }) => {
    if (owners > 0) lost++;
  });
  const find = (array: WasmArray): Slot => {
    const slot = Handle.slot(array, registry);
    if (slot) return slot;
    throw new TypeError(
      slot === null
        ? "Cannot use the array as it was already freed"
        : "Cannot use the array as it must be one of this device: it is another device's, or none",
    );
  };
  const slot: Arrays["slot"] = <K extends Contents["kind"]>(array: WasmArray, kind: K) => {
    const found = find(array);
    if (found.contents.kind === kind) {
      return found as Slot<ContentsOf<K>>;
    }
    throw new TypeError(
      `Cannot use the array as ${named(kind)}: it holds ${named(found.contents.kind)}`,
    );
  };
  const own = <C extends Contents>(block: Block, contents: C, address = block.address) => {
    const behind = { address, block, contents };
    block.owners++;
    const array = new Handle(registry, behind);
    if (++made - freed > MANY) followed.register(array, block);
    return { array, slot: behind };
  };
  return Object.freeze<Arrays>({
    make: (contents) => {
      const bytes = bytesOf(contents);
      return own({ address: memory.allocate(bytes), bytes, owners: 0 }, contents);
    },
    over: ({ address, block }, contents) => own(block, contents, address),
    within: ({ address, block }, offset, contents) => own(block, contents, address + offset),
    slot,
    look: find,
    free: (...arrays) => {
      for (const array of arrays) find(array); // All or none.
      for (const array of arrays) {
        const slot = Handle.slot(array, registry);
        if (!slot) continue; // Named twice.
        Handle.end(array);
        freed++;
        const { block } = slot;
        if (--block.owners === 0) memory.release(block.address, block.bytes);
      }
    },
    contents: (array) => find(array).contents,
    owns: (value): value is WasmArray => Boolean(Handle.slot(value, registry)),
    describe: (array) => {
      const { contents } = find(array);
      const dtype = contents.kind === "elements" ? contents.dtype : "float32";
      return { length: contents.length, dtype };
    },
    census: () => ({ alive: made - freed, lost }),
  });
}

function named(kind: Contents["kind"]): string {
  return kind === "elements" ? "the elements of a tensor or a vector" : kind;
}

/** Bytes of what an array holds. */
export function bytesOf(contents: Contents): number {
  if (contents.kind !== "elements") return 8 * (contents.length + (contents.room ?? 0));
  return (contents.dtype === "float16" ? 2 : 4) * contents.length;
}
