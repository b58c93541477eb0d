/** The way between a Wasm device's arrays and typed arrays of the host. */

import type { Device } from "../../lib/device.ts";
import { momentsWire, sumsWire, weightedMomentsWire } from "../../lib/wire.ts";
import type { Statistic, WasmArray } from "./arrays.ts";
import { type Context, elements, type Operate } from "./context.ts";

/** Operations that move numbers. */
export type Transfers = Pick<
  Device<WasmArray>,
  | "upload"
  | "download"
  | "downloadAll"
  | "toWire"
  | "toWireNow"
  | "fromWire"
  | "merge"
>;

/** float16 elements that are converted at once. */
const CONVERTED = 65_536;

/** Makes the operations that move numbers. */
export function transfers(operate: Operate): Transfers {
  /** A statistic where it lies; of one kind where that is given. */
  const look = ({ arrays, memory }: Context, array: WasmArray, kind?: Statistic["kind"]) => {
    const found = arrays.contents(array).kind;
    const wanted = kind ?? (found === "elements" ? momentsWire.name : found);
    const { address, contents } = arrays.slot(array, wanted);
    const { length } = contents;
    return { kind: contents.kind, values: new Float64Array(memory.buffer(), address, length) };
  };
  const write = ({ make, memory }: Context, kind: Statistic["kind"], wire: Float64Array) => {
    const { array, slot } = make({ kind, length: wire.length });
    new Float64Array(memory.buffer(), slot.address, wire.length).set(wire);
    return array;
  };
  const toWireNow = (array: WasmArray) => operate((context) => look(context, array).values.slice());
  return Object.freeze<Transfers>({
    upload: (values, dtype = "float32") => operate((context) => upload(context, values, dtype)),
    download: (array) =>
      promised(() =>
        operate((context) => {
          const { length } = context.arrays.slot(array, "elements").contents;
          const values = new Float32Array(length);
          read(context, array, values);
          return values;
        })
      ),
    downloadAll: (list) =>
      promised(() =>
        operate((context) => {
          const lengths = list.map((array) =>
            context.arrays.slot(array, "elements").contents.length
          );
          const values = new Float32Array(lengths.reduce((sum, length) => sum + length, 0));
          let at = 0;
          list.forEach((array, i) => {
            read(context, array, values.subarray(at, at + lengths[i]));
            at += lengths[i];
          });
          return values;
        })
      ),
    toWire: (array) => promised(() => toWireNow(array)),
    toWireNow,
    fromWire: ({ name }, wire) => operate((context) => write(context, name, wire)),
    merge: (a, b) =>
      operate((context) => {
        const { kind, values } = look(context, a);
        const formats = [momentsWire, weightedMomentsWire, sumsWire];
        const { combine } = formats.find(({ name }) => name === kind)!;
        return write(context, kind, combine(values, look(context, b, kind).values));
      }),
  });
}

function upload(context: Context, values: Float32Array, dtype: "float32" | "float16"): WasmArray {
  const { areas, kernels, make, memory } = context;
  const { length } = values;
  // A view of this memory would be empty once the memory has grown.
  if (values.buffer === memory.buffer()) return upload(context, values.slice(), dtype);
  const { array, slot } = make(elements(length, dtype));
  if (dtype === "float32") {
    new Float32Array(memory.buffer(), slot.address, length).set(values);
    return array;
  }
  for (let at = 0; at < length; at += CONVERTED) {
    const part = values.subarray(at, at + CONVERTED);
    const [wide] = areas(4 * CONVERTED);
    new Float32Array(memory.buffer(), wide, part.length).set(part);
    kernels.narrow(wide, slot.address + 2 * at, part.length);
  }
  return array;
}

/** Copies the elements of an array to the host, as float32. */
function read(
  { areas, arrays, kernels, memory }: Context,
  array: WasmArray,
  to: Float32Array,
): void {
  const { address, contents: { length, dtype } } = arrays.slot(array, "elements");
  if (dtype === "float32") {
    to.set(new Float32Array(memory.buffer(), address, length));
    return;
  }
  for (let at = 0; at < length; at += CONVERTED) {
    const count = Math.min(CONVERTED, length - at);
    const [wide] = areas(4 * CONVERTED);
    kernels.widen(address + 2 * at, wide, count);
    to.set(new Float32Array(memory.buffer(), wide, count), at);
  }
}

/** Runs a body at once and gives its result, or its error, as a promise. */
function promised<T>(body: () => T): Promise<T> {
  return new Promise((resolve) => resolve(body()));
}
