/** Fills a Wasm memory with arrays, and again once they were dropped; run with `--expose-gc`. */

import { wasmDevice } from "../../kernels/wasm_device.ts";

const { gc } = globalThis as unknown as { readonly gc: () => void };
const device = await wasmDevice({ maximumBytes: 16 << 20 });

/** What an array says that does not fit. */
function refusal(): string {
  try {
    device.upload(new Float32Array(1 << 22));
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

let arrays: unknown[] = [];
for (let i = 0; i < 3000; i++) arrays.push(device.upload(new Float32Array(1024)));
console.log(refusal());
arrays = [];
// Finalizers run in turns of their own.
for (let turn = 0; turn < 10; turn++) {
  gc();
  await new Promise((resolve) => setTimeout(resolve, 10));
}
console.log(refusal());
