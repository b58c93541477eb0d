/** The compiled kernels as a WebAssembly module for the memory and the machine at hand. */

import { DeviceError } from "../../lib/errors.ts";
import { quote } from "../../lib/words.ts";
import { BUILDS, PACKED } from "./binaries.ts";
import { takeApart } from "./interleave.ts";

/** The builds there are: with relaxed multiply-add, or with the instructions of SIMD128 alone. */
export type Build = keyof typeof BUILDS;

/** The kind of memory that a module imports. */
export type MemoryKind = "local" | "shared";

/** Kinds of memory as the binary format writes them: with a maximum, and shared or not. */
const MEMORY_FLAGS: Record<MemoryKind, number> = { local: 0x01, shared: 0x03 };

/** Says whether this runtime can run a build. */
export async function runs(build: Build): Promise<boolean> {
  return WebAssembly.validate(await bytesOf(build, "local"));
}

/** Compiles a build. */
export async function compile(build: Build, kind: MemoryKind): Promise<WebAssembly.Module> {
  const bytes = await bytesOf(build, kind);
  try {
    return await WebAssembly.compile(bytes);
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

async function bytesOf(build: Build, kind: MemoryKind): Promise<Uint8Array<ArrayBuffer>> {
  // atob(): Uint8Array.fromBase64 is not everywhere yet. A loop takes a tenth of the time of Uint8Array.from().
  const text = atob(PACKED.replaceAll("\n", ""));
  const packed = new Uint8Array(text.length);
  for (let at = 0; at < packed.length; at++) packed[at] = text.charCodeAt(at);
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const all = new Uint8Array(await new Response(unpacked).arrayBuffer());
  const lengths = Object.values(BUILDS).map(({ length }) => length);
  const bytes = takeApart(all, lengths, Object.keys(BUILDS).indexOf(build));
  bytes[BUILDS[build].memoryFlag] = MEMORY_FLAGS[kind];
  return bytes;
}
