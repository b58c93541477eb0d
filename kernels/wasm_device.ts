/**
 * syncbn on WebAssembly SIMD: the device for every machine without a GPU, on one thread or several.
 *
 * @example
 * ```ts
 * import { batchNormForward, initBatchNorm, tensor, toArray } from "@syncbn/syncbn";
 * import { wasmDevice } from "@syncbn/syncbn/wasm";
 * import assert from "node:assert/strict";
 *
 * await using device = await wasmDevice();
 * const state = initBatchNorm(device, 1, { eps: 0 });
 * const { output } = batchNormForward(state, tensor(device, [1, 3], [2, 1]), { device });
 * assert.deepEqual(await toArray(device, output), Float32Array.of(-1, 1));
 * ```
 *
 * @module
 */

// `wasmDevice` is asynchronous though one thread would not need it: threads start, and browsers compile, in their own
// time.

import { checkOptions } from "../lib/check_effects.ts";
import { checkLayout, elements, type Tensor, type TensorOptions } from "../lib/tensor.ts";
import { checkOneOf, SWITCH } from "../lib/check_value.ts";
import { shown, wrongValue } from "../lib/words.ts";
import type { WasmArray } from "./wasm/arrays.ts";
import { createDevice } from "./wasm/device.ts";
import type { WasmDevice, WasmInfo, WasmOptions } from "./wasm/handle.ts";
import { MOST_PAGES, PAGE } from "./wasm/memory.ts";

export type { WasmArray, WasmDevice, WasmInfo, WasmOptions };

const OPTIONS = [
  "threads",
  "threadsFrom",
  "arithmetic",
  "exact",
  "initialBytes",
  "maximumBytes",
  "timeoutMs",
];
const MOST_BYTES = MOST_PAGES * PAGE;
const MOST_THREADS = 16;
/** The longest that setTimeout() and Atomics.wait() wait; anything more is at once, or never. */
const MOST_TIMEOUT_MS = 2 ** 31 - 1;

/**
 * Opens a device in a Wasm memory of its own.
 *
 * Storage is float32 or float16, arithmetic float32 about a shift with float64 merges; needs no permission. With several
 * threads, large tensors are shared out among workers on shared memory, and calls stay synchronous: each returns when all
 * threads are done. Every wait for a thread is bounded; past `timeoutMs`, or when a worker dies, the call and every later
 * one throws a DeviceError "lost", and `stateToHost`'s copies go on elsewhere.
 *
 * @param options threads, arithmetic, sizes of memory
 * @returns a frozen device; dispose it (`await using`), which ends its workers
 * @throws (rejects with) RangeError or TypeError for impossible options, DeviceError "unsupported" where the runtime has no
 * Wasm SIMD, "outOfMemory" where the memory is not granted, "lost" where the workers do not start
 *
 * @example Two threads
 * ```ts
 * import { wasmDevice } from "@syncbn/syncbn/wasm";
 *
 * await using device = await wasmDevice({ threads: 2 });
 * console.log(device.info.name);
 * ```
 */
export async function wasmDevice(options: WasmOptions = {}): Promise<WasmDevice> {
  checkWasmOptions(options);
  return await createDevice(options);
}

/**
 * Makes a tensor whose elements are undefined until they are written through {@linkcode view}: data that is made or decoded
 * in place need not be copied.
 *
 * @param device a Wasm device; a region's handle does not take care of the tensor
 * @param shape the logical shape `(N, C, ...spatial)`
 * @param options storage and memory order
 * @returns a frozen tensor
 * @throws TypeError or RangeError for an impossible shape, DeviceError "outOfMemory" where there is no room
 *
 * @example
 * ```ts
 * import { emptyTensor, view, wasmDevice } from "@syncbn/syncbn/wasm";
 *
 * await using device = await wasmDevice();
 * const x = emptyTensor(device, [8, 3, 32, 32]);
 * view(x).fill(0.5);
 * ```
 */
export function emptyTensor(
  device: Pick<WasmDevice, "allocate">,
  shape: readonly number[],
  { dtype = "float32", format = "channelsFirst" }: TensorOptions = {},
): Tensor<WasmArray> {
  const action = "make the tensor";
  checkLayout({ shape, dtype, format }, action);
  if (typeof device?.allocate !== "function") {
    throw new TypeError(
      `Cannot ${action} as device must be one of wasmDevice(): current value is ${shown(device)}`,
    );
  }
  const data = device.allocate(elements(shape), dtype);
  return Object.freeze({ data, shape: Object.freeze([...shape]), dtype, format });
}

/**
 * Looks at the elements of a tensor or a vector where they lie: no copy is made.
 *
 * Without threads the view is valid until the next allocation on its device, which may grow the memory: it then has a length
 * of 0. With threads the memory is shared, and the view is valid until the array is freed; what it shows after that belongs
 * to whoever got the memory next. Write to a tensor before it is first used, not later: tensors and states are immutable.
 *
 * @param of a tensor, or an array such as a state's weight or a gradient
 * @returns its elements in memory order (that of `format`); over shared memory for a device with threads
 * @throws TypeError where it is no array of a Wasm device or was freed, DeviceError "unsupported" for float16 on a runtime
 * without Float16Array
 *
 * @example
 * ```ts
 * import { tensor } from "@syncbn/syncbn";
 * import { view, wasmDevice } from "@syncbn/syncbn/wasm";
 *
 * await using device = await wasmDevice();
 * const x = tensor(device, [1, 2, 3, 4], [2, 2]);
 * console.assert(view(x)[3] === 4);
 * ```
 */
export function view(of: Tensor<WasmArray> | WasmArray): Float32Array | Float16Array {
  const array = Object(of) === of && "data" in of ? of.data : of as WasmArray;
  if (array?.device === "wasm") return array.elements();
  throw new TypeError(
    `Cannot view the tensor as it must be one of a Wasm device: current value is ${shown(of)}`,
  );
}

function checkWasmOptions(options: WasmOptions): void {
  const action = "open the device";
  checkOptions(options, OPTIONS, action);
  const { threads, threadsFrom, arithmetic, exact, initialBytes, maximumBytes, timeoutMs } =
    options;
  const checkInteger = (name: string, value: number | undefined, most: number): void => {
    if (value === undefined || (Number.isInteger(value) && value >= 1 && value <= most)) return;
    throw new RangeError(
      `Cannot ${action} as ${name} must be an integer from 1 to ${most}: current value is ${
        shown(value)
      }`,
    );
  };
  checkInteger("threads", threads, MOST_THREADS);
  checkInteger("maximumBytes", maximumBytes, MOST_BYTES);
  checkInteger("initialBytes", initialBytes, maximumBytes ?? MOST_BYTES);
  checkInteger("timeoutMs", timeoutMs, MOST_TIMEOUT_MS);
  if (
    threadsFrom !== undefined && typeof threadsFrom !== "string" &&
    typeof threadsFrom !== "function" && !(threadsFrom instanceof URL)
  ) {
    throw new TypeError(
      `Cannot ${action} as threadsFrom must be the address of a module that calls serveThread(), or a ` +
        `function that starts its worker: current value is ${shown(threadsFrom)}`,
    );
  }
  checkOneOf(exact, SWITCH, "exact", action);
  if (exact && arithmetic === "fast") {
    throw wrongValue(action, 'arithmetic of an exact device must be "reproducible"', arithmetic);
  }
  if (arithmetic !== undefined && arithmetic !== "fast" && arithmetic !== "reproducible") {
    throw new TypeError(
      `Cannot ${action} as arithmetic must be "fast" or "reproducible": current value is ${
        shown(arithmetic)
      }`,
    );
  }
}
