/** What operations are made with: addresses of arrays, scratch memory, kernels on one thread or on all. */

import { type Activation, boundsOf, type Rectified } from "../../lib/activation.ts";
import { DeviceError } from "../../lib/errors.ts";
import {
  type DType,
  elements as elementsIn,
  extents,
  type Format,
  type Tensor,
} from "../../lib/tensor.ts";
import type { WireFormat } from "../../lib/wire.ts";
import {
  type Arrays,
  bytesOf,
  type Contents,
  type Elements,
  type Slot,
  type WasmArray,
} from "./arrays.ts";
import { halfOf, type Part, partsOf, sameOrder } from "./layout.ts";
import type { Memory } from "./memory.ts";
import type { Team } from "./threads/team.ts";

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
  /** How statistics without rounding become numbers; missing where they are numbers. */
  readonly exact?: Exact;
}

/** Where kernels find the numbers that statistics without rounding come to. */
export interface Exact {
  /** [count, mean C, m2 C] of moments. */
  readonly momentsAt: (context: Context, moments: WasmArray, channels: number) => number;
  /** [sumDy C, sumDyXmu C] of gradient sums, made with moments at an address, or 0; 0 for null. */
  readonly sumsAt: (
    context: Context,
    sums: WasmArray | null,
    channels: number,
    moments: number,
  ) => number;
}

/** A machine with scratch memory: what operations see. */
export interface Context extends Machine {
  /**
   * Addresses of what a pass names, each checked against the place that it has there: elements of a tensor of so many
   * elements of a dtype, a vector of so many channels, statistics of so many. 0, which means none, for null and undefined.
   */
  readonly tensor: (tensor: Tensor<WasmArray>, like: Like) => number;
  readonly vector: (array: WasmArray | null, channels: number) => number;
  readonly statistic: (array: WasmArray | null, format: WireFormat, channels: number) => number;
  /** Areas of scratch memory of so many bytes, one after the other; they are anybody's after the operation. */
  readonly areas: (...bytes: readonly number[]) => number[];
  /** `tensor` in a memory order, transposed into a temporary block where the elements lie in the other; 0 for undefined. */
  readonly ordered: (tensor: Tensor<WasmArray> | undefined, like: Like, format: Format) => number;
  /** Sets the bounds of the activation, whose results are of a dtype, that kernels called in this operation have. */
  readonly rectify: (activation: Activation, dtype: DType) => void;
  /** `ordered` of an output whose gate kernels shall have. */
  readonly gate: (output: Rectified<WasmArray> | undefined, like: Like, format: Format) => number;
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
  /** Makes an array of a part of another's elements, from so many bytes on, where they lie. */
  readonly makeIn: (given: WasmArray, offset: number, contents: Elements) => Made<Elements>;
  /** Makes an array of the result in the block of one that the caller gives up, or a new one for null. */
  readonly makeOver: (given: WasmArray | null, contents: Elements) => Made<Elements>;
}

/** What all tensors of a pass have in common: as many elements, of one storage. */
export interface Like {
  readonly elements: number;
  readonly dtype: DType;
}

/** How the elements of a tensor lie. */
export type Layable = Pick<Tensor<unknown>, "shape" | "dtype" | "format">;

/** A new array and what stands behind it. */
export interface Made<C extends Contents> {
  readonly array: WasmArray;
  readonly slot: Slot<C>;
}

/** Runs the body of an operation and gives back what it borrowed. */
export type Operate = <R>(body: (context: Context) => R) => R;

const LINE = 64;

/** Makes what operations are run by, each by itself or several as one. */
export function createContext(machine: Machine, check: () => void) {
  const { memory, arrays, kernels, team, least } = machine;
  let bounds = boundsOf("relu", "float32");
  kernels.rectify(bounds.negativeSlope, bounds.maxValue);
  const rectify: Context["rectify"] = (activation, dtype) => {
    const { negativeSlope, maxValue } = boundsOf(activation, dtype);
    if (negativeSlope === bounds.negativeSlope && maxValue === bounds.maxValue) return;
    bounds = { negativeSlope, maxValue };
    kernels.rectify(negativeSlope, maxValue);
  };
  const scratch = { address: 0, bytes: 0 };
  const borrowed: (readonly [address: number, bytes: number])[] = [];
  const made: WasmArray[] = [];
  let lost: unknown;

  const areas: Context["areas"] = (...bytes) => {
    const starts = [];
    let total = 0;
    for (const size of bytes) {
      starts.push(total);
      total += Math.ceil(size / LINE) * LINE;
    }
    if (total > scratch.bytes) {
      if (scratch.bytes > 0) memory.release(scratch.address, scratch.bytes);
      scratch.bytes = 0;
      scratch.address = memory.allocate(total);
      scratch.bytes = total;
    }
    for (let i = 0; i < starts.length; i++) starts[i] += scratch.address;
    return starts;
  };
  const slotOf = ({ data, shape, dtype }: Tensor<WasmArray>, like: Like) => {
    const slot = arrays.slot(data, "elements");
    const { length } = slot.contents;
    if (
      length === like.elements && elementsIn(shape) === length && slot.contents.dtype === like.dtype
    ) {
      return slot;
    }
    throw new TypeError(
      `Cannot use the array as it must hold ${like.elements} elements of ${like.dtype} in a shape of as many: ` +
        `current array holds ${length} of ${slot.contents.dtype}, in shape (${
          shape.join(", ")
        }) of ${dtype}`,
    );
  };
  const tensor: Context["tensor"] = (tensor, like) => slotOf(tensor, like).address;
  const vector: Context["vector"] = (array, channels) => {
    if (array === null) return 0;
    const { address, contents: { length, dtype } } = arrays.slot(array, "elements");
    if (length === channels && dtype === "float32") return address;
    throw new TypeError(
      `Cannot use the array as a vector as it must hold ${channels} float32: current array holds ${length} of ${dtype}`,
    );
  };
  const statistic: Context["statistic"] = (array, format, channels) => {
    if (array === null) return 0;
    const { address, contents: { length } } = arrays.slot(array, format.name);
    if (length === format.length(channels)) return address;
    throw new TypeError(
      `Cannot use the array as ${format.name} as they must be those of ${channels} channels: ` +
        `current length is ${length} instead of ${format.length(channels)}`,
    );
  };
  const parts: Context["parts"] = (elements, multiple) =>
    partsOf(elements, team.threads, least, multiple);
  const run: Context["run"] = (kernel, parts, argumentsOf) => {
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
  const copy: Context["copy"] = ({ shape, dtype, format }, from, to, wanted) => {
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
  const borrow: Context["borrow"] = (bytes) => {
    const block = memory.allocate(bytes);
    borrowed.push([block, bytes]);
    return block;
  };
  const ordered: Context["ordered"] = (tensor, like, format) => {
    if (tensor === undefined) return 0;
    const { contents, address } = slotOf(tensor, like);
    if (sameOrder(tensor.shape, tensor.format, format)) return address;
    const block = borrow(bytesOf(contents));
    copy(tensor, address, block, format);
    return block;
  };
  const keep = <M extends { readonly array: WasmArray }>(result: M): M => {
    made.push(result.array);
    return result;
  };
  const make: Context["make"] = (contents) => keep(arrays.make(contents));
  const makeOver: Context["makeOver"] = (given, contents) =>
    given === null ? make(contents) : keep(arrays.over(arrays.slot(given, "elements"), contents));
  const makeIn: Context["makeIn"] = (given, offset, contents) =>
    keep(arrays.within(arrays.slot(given, "elements"), offset, contents));

  const context = Object.freeze<Context>({
    ...machine,
    rectify,
    gate: (output, like, format) => {
      if (output) rectify(output.activation, output.dtype);
      return ordered(output, like, format);
    },
    tensor,
    vector,
    statistic,
    areas,
    ordered,
    parts,
    run,
    copy,
    borrow,
    make,
    makeOver,
    makeIn,
  });
  let within = 0; // How many bodies are running, each in the one before.
  /** Runs a body, operations in it too, and frees what was made in it where it throws. */
  const allOrNothing = <R>(body: (context: Context) => R): R => {
    const before = made.length;
    within++;
    try {
      return body(context);
    } catch (error) {
      arrays.free(...made.splice(before).filter(arrays.owns));
      throw error;
    } finally {
      within--;
      // One by one takes a tenth of what it takes to set its length.
      while (within === 0 && made.length > 0) made.pop();
    }
  };
  const operate: Operate = (body) => {
    check();
    if (lost !== undefined) throw lost;
    try {
      return allOrNothing(body);
    } catch (error) {
      throw explained(error, arrays);
    } finally {
      while (borrowed.length > 0) memory.release(...borrowed.pop()!);
    }
  };
  return { operate, allOrNothing };
}

/** An error, and if memory is short what is in it, as far as is known. */
function explained(error: unknown, { census }: Arrays): unknown {
  if (!(error instanceof DeviceError && error.code === "outOfMemory")) return error;
  const { alive, lost } = census();
  const dropped = lost > 0 ? `, of which ${lost} or more were dropped without being freed` : "";
  return new DeviceError(
    `${error.message}; ${alive} arrays are alive${dropped}: a loop gives its old state to ` +
      "region(device, body, { replace: state }), or to release()",
    "outOfMemory",
    { cause: error },
  );
}

/** Contents of an array of elements. */
export function elements(length: number, dtype: Elements["dtype"]): Elements {
  return { kind: "elements", length, dtype };
}
