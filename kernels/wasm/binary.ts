/** The compiled kernels as a WebAssembly module for the memory and the machine at hand. */

import { DeviceError } from "../../lib/errors.ts";
import { quote } from "../../lib/words.ts";
import { binaries } from "./binaries.ts";

/** The builds there are: with relaxed multiply-add, or with the instructions of SIMD128 alone. */
export type Build = keyof typeof binaries;

/** The kind of memory that a module imports. */
export type MemoryKind = "local" | "shared";

/** Kinds of memory as the binary format writes them: with a maximum, and shared or not. */
const MEMORY_FLAGS: Record<MemoryKind, number> = { local: 0x01, shared: 0x03 };

/** Says whether this runtime can run a build. */
export function runs(build: Build): boolean {
  return WebAssembly.validate(bytesOf(build, "local"));
}

/** Compiles a build. */
export async function compile(build: Build, kind: MemoryKind): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(bytesOf(build, kind));
  } catch (cause) {
    // The runtime knows the instructions (see runs()), so it is the page that may not.
    throw new DeviceError(
      "Cannot open the device as compiling Wasm must be allowed: add 'wasm-unsafe-eval' to the directive script-src " +
        `of the page's Content-Security-Policy, or use referenceDevice(); the runtime says ${
          quote(String(cause))
        }`,
      "unsupported",
      { cause },
    );
  }
}

function bytesOf(build: Build, kind: MemoryKind): Uint8Array<ArrayBuffer> {
  const { base64, memoryFlag } = binaries[build];
  // atob(): Uint8Array.fromBase64 is not everywhere yet.
  const bytes = Uint8Array.from(atob(base64.replaceAll("\n", "")), (byte) => byte.charCodeAt(0));
  bytes[memoryFlag] = MEMORY_FLAGS[kind];
  return bytes;
}
