/**
 * What operations are made with: addresses of arrays, scratch memory, kernels on one thread or on all.
 *
 * @module
 */

import { extents, type Format, type Tensor } from "../../lib/tensor.ts";
import {
  type Arrays,
  bytesOf,
  type Contents,
  type Elements,
  type Slot,
  type WasmArray,
} from "./arrays.ts";
import { type Layout, type Part, partsOf, sameOrder } from "./layout.ts";
import type { Memory } from "./memory.ts";
import type { Team } from "./threads/team.ts";

/** Bytes of a channel's record in scratch memory: the one of `assembly/moments.ts` and `assembly/sums.ts`. */
export const RECORD = 64;
/** Float32 elements of a run that kernels widen at once: MOST of `assembly/storage.ts`. */
export const MOST = 4096;

/** Exported kernels, by name. */
export type Kernels = Readonly<Record<string, (...args: number[]) => void>>;

/** The parts that a device is made of. */
export interface Machine {
  readonly memory: Memory;
  readonly arrays: Arrays;
  readonly kernels: Kernels;
  readonly team: Team;
  /** Elements that a part must have to be worth a thread. */
  readonly least: number;
}

/** A machine with scratch memory: what operations see. */
export interface Bench extends Machine {
  /** Address of the elements of an array; 0, which means none, for null. */
  readonly address: (array: WasmArray | null) => number;
  /** Areas of scratch memory of so many bytes, one after the other; they are anybody's after the operation. */
  readonly areas: (...bytes: readonly number[]) => number[];
  /**
   * Address of the elements of a tensor in a memory order, transposed into a temporary block where they lie in the other;
   * 0 for null.
   */
  readonly ordered: (tensor: Tensor<WasmArray> | null, format: Format) => number;
  /** How the elements of a tensor are shared out among threads. */
  readonly parts: (elements: number, multiple?: number) => readonly Part[];
  /** Runs a kernel on every part, each on a thread of its own; they are done when this returns. */
  readonly run: (
    kernel: string,
    parts: readonly Part[],
    argumentsOf: (part: Part, thread: number) => readonly number[],
  ) => void;
  /** Copies elements that lie like a tensor's to another address, in a memory order. */
  readonly copy: (like: Layable, from: number, to: number, format: Format) => void;
  /** A block of so many bytes for the length of the operation. */
  readonly borrow: (bytes: number) => number;
  /** Makes an array of the result; it is freed again if the operation fails. */
  readonly make: <C extends Contents>(contents: C) => Made<C>;
  /** Makes an array of the result in the block of one that the caller gives up, or a new one for null. */
  readonly makeOver: (given: WasmArray | null, contents: Elements) => Made<Elements>;
}

/** How the elements of a tensor lie. */
export type Layable = Pick<Tensor<unknown>, "shape" | "dtype" | "format">;

/** A new array and what stands behind it. */
export interface Made<C extends Contents> {
  readonly array: WasmArray;
  readonly slot: Slot<C>;
}

/** Runs the body of an operation and gives back what it borrowed. */
export type Operate = <R>(body: (bench: Bench) => R) => R;

const LINE = 64;

/**
 * Makes what operations are run by.
 *
 * @param machine the parts of the device
 * @param check throws where the device may not be used any more
 * @returns the runner
 */
export function createBench(machine: Machine, check: () => void): Operate {
  const { memory, arrays, kernels, team, least } = machine;
  const scratch = { address: 0, bytes: 0 };
  const borrowed: number[] = [];
  const made: WasmArray[] = [];
  let lost: unknown;

  const areas: Bench["areas"] = (...bytes) => {
    const starts: number[] = [];
    let total = 0;
    for (const size of bytes) {
      starts.push(total);
      total += Math.ceil(size / LINE) * LINE;
    }
    if (total > scratch.bytes) {
      if (scratch.bytes > 0) memory.release(scratch.address);
      scratch.bytes = 0;
      scratch.address = memory.allocate(total);
      scratch.bytes = total;
    }
    return starts.map((start) => scratch.address + start);
  };
  const address: Bench["address"] = (array) =>
    array === null ? 0 : arrays.slot(array, "elements").address;
  const parts: Bench["parts"] = (elements, multiple) =>
    partsOf(elements, team.threads, least, multiple);
  const run: Bench["run"] = (kernel, parts, argumentsOf) => {
    if (parts.length === 1) {
      kernels[kernel](...argumentsOf(parts[0], 0));
      return;
    }
    try {
      team.run(kernel, parts.map(argumentsOf));
    } catch (error) {
      lost ??= error; // A thread that is late may still write, so nothing in this memory can be trusted any more.
      throw error;
    }
  };
  const copy: Bench["copy"] = ({ shape, dtype, format }, from, to, wanted) => {
    const half = halfOf(dtype);
    const { batch, channels, inner } = extents(shape);
    const elements = batch * channels * inner;
    if (elements === 0) return;
    if (sameOrder(shape, format, wanted)) {
      run("copy", parts(elements), (part) => [from, to, half, part.from, part.to]);
      return;
    }
    const [rows, columns] = format === "channelsFirst" ? [channels, inner] : [inner, channels];
    const sample = rows * columns;
    run(
      "transpose",
      parts(elements, sample),
      (part) => [from, to, half, rows, columns, part.from / sample, part.to / sample],
    );
  };
  const borrow: Bench["borrow"] = (bytes) => {
    const block = memory.allocate(bytes);
    borrowed.push(block);
    return block;
  };
  const ordered: Bench["ordered"] = (tensor, format) => {
    if (tensor === null) return 0;
    const { contents, address } = arrays.slot(tensor.data, "elements");
    if (sameOrder(tensor.shape, tensor.format, format)) return address;
    const block = borrow(bytesOf(contents));
    copy(tensor, address, block, format);
    return block;
  };
  const keep = <M extends { readonly array: WasmArray }>(result: M): M => {
    made.push(result.array);
    return result;
  };
  const make: Bench["make"] = (contents) => keep(arrays.make(contents));
  const makeOver: Bench["makeOver"] = (given, contents) =>
    given === null ? make(contents) : keep(arrays.over(arrays.slot(given, "elements"), contents));

  const bench = Object.freeze<Bench>({
    ...machine,
    address,
    areas,
    ordered,
    parts,
    run,
    copy,
    borrow,
    make,
    makeOver,
  });
  return (body) => {
    check();
    if (lost !== undefined) throw lost;
    made.length = 0;
    try {
      return body(bench);
    } catch (error) {
      arrays.free(...made);
      throw error;
    } finally {
      while (borrowed.length > 0) memory.release(borrowed.pop()!);
    }
  };
}

/** The storage of a tensor as kernels take it: 1 for float16. */
export function halfOf(dtype: Elements["dtype"]): 0 | 1 {
  return dtype === "float16" ? 1 : 0;
}

/** What parts of a tensor must begin at a multiple of. */
export function grainOf({ period }: Layout): number | undefined {
  return period ?? undefined;
}

/** Contents of an array of elements. */
export function elements(length: number, dtype: Elements["dtype"]): Elements {
  return { kind: "elements", length, dtype };
}
