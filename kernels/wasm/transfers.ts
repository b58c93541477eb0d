/**
 * The way between a Wasm device's arrays and typed arrays of the host.
 *
 * @module
 */

import type { Device } from "../../lib/device.ts";
import type { WasmArray } from "./arrays.ts";
import { type Bench, elements, type Operate } from "./workbench.ts";

/** Operations that move numbers. */
export type Transfers = Pick<
  Device<WasmArray>,
  | "upload"
  | "download"
  | "downloadAll"
  | "momentsToWire"
  | "momentsFromWire"
  | "sumsToWire"
  | "sumsFromWire"
>;

/** float16 elements that are converted at once. */
const CONVERTED = 65_536;

/** Makes the operations that move numbers. */
export function transfers(operate: Operate): Transfers {
  const toWire = (array: WasmArray, kind: "moments" | "sums") =>
    promised(() =>
      operate(({ arrays, memory }) => {
        const { address, contents } = arrays.slot(array, kind);
        return new Float64Array(memory.buffer(), address, contents.length).slice();
      })
    );
  const fromWire = (wire: Float64Array, kind: "moments" | "sums") =>
    operate(({ make, memory }) => {
      const { array, slot } = make({ kind, length: wire.length });
      new Float64Array(memory.buffer(), slot.address, wire.length).set(wire);
      return array;
    });
  return Object.freeze<Transfers>({
    upload: (values, dtype = "float32") => operate((bench) => upload(bench, values, dtype)),
    download: (array) =>
      promised(() =>
        operate((bench) => {
          const { length } = bench.arrays.slot(array, "elements").contents;
          const values = new Float32Array(length);
          read(bench, array, values);
          return values;
        })
      ),
    downloadAll: (list) =>
      promised(() =>
        operate((bench) => {
          const lengths = list.map((array) => bench.arrays.slot(array, "elements").contents.length);
          const values = new Float32Array(lengths.reduce((sum, length) => sum + length, 0));
          let at = 0;
          list.forEach((array, i) => {
            read(bench, array, values.subarray(at, at + lengths[i]));
            at += lengths[i];
          });
          return values;
        })
      ),
    momentsToWire: (moments) => toWire(moments, "moments"),
    momentsFromWire: (wire) => fromWire(wire, "moments"),
    sumsToWire: (sums) => toWire(sums, "sums"),
    sumsFromWire: (wire) => fromWire(wire, "sums"),
  });
}

function upload(bench: Bench, values: Float32Array, dtype: "float32" | "float16"): WasmArray {
  const { areas, kernels, make, memory } = bench;
  const { length } = values;
  // A view of this memory would be empty once the memory has grown.
  if (values.buffer === memory.buffer()) return upload(bench, values.slice(), dtype);
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
function read({ areas, arrays, kernels, memory }: Bench, array: WasmArray, to: Float32Array): void {
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
