/** The handle on a Wasm device that users hold, and its options. Types only. */

import type { Device, DeviceInfo } from "../../lib/device.ts";
import type { DType } from "../../lib/tensor.ts";
import type { WasmArray } from "./arrays.ts";

/** What a Wasm device says of itself. */
export interface WasmInfo extends DeviceInfo {
  /** Threads that compute, the caller's included. */
  readonly threads: number;
  /** Why that is one although more were asked for, as a clause that says what to do; null where it is as asked. */
  readonly threadsReason: string | null;
  /** Whether products are added by one rounding or two; `"reproducible"` gives the same bits on every machine. */
  readonly arithmetic: "fast" | "reproducible";
}

/** A device in a Wasm memory of its own. To dispose it ends its threads; the memory goes when nobody holds the handle
 * or an array any more. */
export interface WasmDevice extends Device<WasmArray>, Disposable, AsyncDisposable {
  /** What the device says of itself. */
  readonly info: WasmInfo;
  /** Makes an array whose elements are undefined until they are written through `view`. */
  readonly allocate: (length: number, dtype: DType) => WasmArray;
}

/** Options of `wasmDevice`. */
export interface WasmOptions {
  /**
   * Threads that compute, the caller's included: 1 by default, 16 at most. More than one need shared memory, and a caller
   * that may wait: on the main thread of a browser the device has one, and `info.threadsReason` says why.
   */
  readonly threads?: number;
  /**
   * Where threads beside the caller's come from: the address of a module that calls `serveThread` of `./wasm-thread`, or a
   * function that starts a worker of such a module (bundlers want to see `new Worker(new URL(...))` as such). By default a
   * browser gets their program from a `blob:` URL, which some pages' policies forbid.
   */
  readonly threadsFrom?: string | URL | (() => Worker);
  /**
   * `"fast"` (the default) adds products by fused multiply-add where the runtime has relaxed SIMD; `"reproducible"` rounds
   * them first, which gives the same bits on every machine for the same number of threads.
   */
  readonly arithmetic?: "fast" | "reproducible";
  /**
   * Whether results have the same bits for any number of ranks, any partition of a batch, any order, engine, format and number of
   * threads, and those of an exact reference device: sums are taken without rounding. `arithmetic` is then `"reproducible"`;
   * weights are whole numbers up to 2^24, and gradients of gradients left out. False by default.
   */
  readonly exact?: boolean;
  /** Bytes of memory to begin with, which then need not grow; 1 MiB by default. */
  readonly initialBytes?: number;
  /** Bytes that the memory may grow to; 4 GiB by default, which is all that 32-bit addresses reach. */
  readonly maximumBytes?: number;
  /** Milliseconds that a thread is waited for before the device counts as lost; 30,000 by default. */
  readonly timeoutMs?: number;
}
