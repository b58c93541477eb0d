/** The composition root: memory, kernels, threads and arrays of one handle, given to each other. */

import { DeviceError } from "../../lib/errors.ts";
import type { DType } from "../../lib/tensor.ts";
import { shown } from "../../lib/words.ts";
import { createArrays, type Elements, type Slot } from "./arrays.ts";
import { type Build, compile, runs } from "./binary.ts";
import { elementwiseOperations } from "./elementwise_operations.ts";
import { EXACT, exactOperations } from "./exact_operations.ts";
import { EXACT_WIRES } from "../../lib/exact/wires.ts";
import { forwardOperations } from "./forward_operations.ts";
import { gradientOperations } from "./gradient_operations.ts";
import type { WasmDevice, WasmOptions } from "./handle.ts";
import { WORTH_A_THREAD } from "./layout.ts";
import { createMemory, type Memory, MOST_PAGES, PAGE } from "./memory.ts";
import { secondOperations } from "./second_operations.ts";
import { startThread, startThreadFrom } from "./threads/start.ts";
import { createTeam, whyOneThread } from "./threads/team.ts";
import { transfers } from "./transfers.ts";
import { createContext, elements, type Kernels } from "./context.ts";

/** What a handle may be told beside the caller's options. */
export interface Circumstances {
  /** For tests: stands between the device and its memory. */
  readonly around?: (memory: Memory) => Memory;
  /** For tests: this build, whatever the arithmetic and the runtime. */
  readonly build?: Build;
  /** For tests: elements that are worth a thread. */
  readonly least?: number;
}

const EXACT_PASSES = Object.freeze(["residual", "activation", "weights", "tangents"] as const);
const PASSES = Object.freeze([...EXACT_PASSES, "rectifier", "secondOrder", "arrange"] as const);
const INITIAL_BYTES = 2 ** 20;
const TIMEOUT_MS = 30_000;

/** Makes a handle. */
export async function createDevice(
  options: WasmOptions,
  { around = (memory) => memory, build: forced, least = WORTH_A_THREAD }: Circumstances = {},
): Promise<WasmDevice> {
  const { arithmetic = "fast", maximumBytes = MOST_PAGES * PAGE, timeoutMs = TIMEOUT_MS } = options;
  const { initialBytes = Math.min(INITIAL_BYTES, maximumBytes) } = options;
  const exact = options.exact === true;
  const build = forced ?? await chooseBuild(exact ? "reproducible" : arithmetic);
  const wanted = options.threads ?? 1;
  const threadsReason = wanted > 1 ? whyOneThread() : null;
  const threads = threadsReason === null ? wanted : 1;
  const shared = threads > 1;
  const wasmMemory = createWasmMemory(initialBytes, maximumBytes, shared);
  const module = await compile(build, shared ? "shared" : "local");
  const instance = await WebAssembly.instantiate(module, { env: { memory: wasmMemory } });
  const kernels = instance.exports as unknown as Kernels;
  const { threadsFrom } = options;
  const team = await createTeam(
    { module, memory: wasmMemory, exports: kernels, threads, timeoutMs },
    threadsFrom === undefined ? startThread : startThreadFrom(threadsFrom),
  );

  let disposed = false;
  const check = (): void => {
    if (!disposed) return;
    throw new DeviceError("Cannot use the device as it was disposed: open another one", "lost");
  };
  const memory = around(createMemory(wasmMemory));
  const view = ({ address, contents: { length, dtype } }: Slot<Elements>) => {
    check();
    if (dtype === "float32") return new Float32Array(memory.buffer(), address, length);
    if (typeof Float16Array === "function") {
      return new Float16Array(memory.buffer(), address, length);
    }
    throw new DeviceError(
      "Cannot view a float16 array as this runtime has no Float16Array: download it instead",
      "unsupported",
    );
  };
  const arrays = createArrays(memory, view);
  const { operate, allOrNothing } = createContext(
    { memory, arrays, kernels, team, least, ...(exact && { exact: EXACT }) },
    check,
  );
  const { describe, free, owns } = arrays;
  const { tangents, ...second } = secondOperations(operate);
  const dispose = (): void => {
    disposed = true;
    team.close();
  };
  return Object.freeze<WasmDevice>({
    info: Object.freeze({
      name:
        `Wasm SIMD (${
          exact ? "exact" : build === "relaxed" ? "relaxed multiply-add" : "reproducible"
        }, ` +
        `${threads} thread${threads > 1 ? "s" : ""})`,
      float16: true,
      passes: exact ? EXACT_PASSES : PASSES,
      exact,
      threads,
      threadsReason,
      arithmetic: build === "relaxed" ? "fast" : "reproducible",
    }),
    describe,
    free,
    owns,
    allOrNothing,
    allocate: (length, dtype) =>
      operate(({ make }) => {
        checkElements(length, dtype);
        return make(elements(length, dtype)).array;
      }),
    ...transfers(operate),
    ...forwardOperations(operate),
    ...gradientOperations(operate),
    ...elementwiseOperations(operate),
    tangents,
    ...(exact ? { ...exactOperations(operate), wires: EXACT_WIRES } : second),
    [Symbol.dispose]: dispose,
    [Symbol.asyncDispose]: () => Promise.resolve(dispose()),
  });
}

function checkElements(length: number, dtype: DType): void {
  const action = "make the array";
  if (!Number.isSafeInteger(length) || length < 0) {
    throw new RangeError(
      `Cannot ${action} as length must be a non-negative integer: current value is ${
        shown(length)
      }`,
    );
  }
  if (dtype !== "float32" && dtype !== "float16") {
    throw new TypeError(
      `Cannot ${action} as dtype must be "float32" or "float16": current value is ${shown(dtype)}`,
    );
  }
}

async function chooseBuild(arithmetic: "fast" | "reproducible"): Promise<Build> {
  if (arithmetic === "fast" && await runs("relaxed")) return "relaxed";
  if (await runs("simd128")) return "simd128";
  throw new DeviceError(
    "Cannot open the device as this runtime must have WebAssembly with SIMD: use a newer runtime, " +
      "or referenceDevice()",
    "unsupported",
  );
}

function createWasmMemory(
  initialBytes: number,
  maximumBytes: number,
  shared: boolean,
): WebAssembly.Memory {
  const initial = Math.ceil(initialBytes / PAGE);
  const maximum = Math.ceil(maximumBytes / PAGE);
  try {
    return new WebAssembly.Memory({ initial, maximum, shared });
  } catch (cause) {
    throw new DeviceError(
      `Cannot open the device as the machine must grant ${initialBytes} bytes of memory that may ` +
        `grow to ${maximumBytes}: ask for less by initialBytes and maximumBytes`,
      "outOfMemory",
      { cause },
    );
  }
}
