/** A small module of kernels, and teams that run it. */

import { createTeam, type Team } from "../../kernels/wasm/threads/team.ts";
import type { StartThread } from "../../kernels/wasm/threads/start.ts";

/**
 * The module, assembled from this text with the feature "threads":
 * ```wat
 * (module
 *   (import "env" "memory" (memory 1 1 shared))
 *   (func (export "add") (param $at i32) (param $value f64)
 *     (f64.store (local.get $at) (f64.add (f64.load (local.get $at)) (local.get $value))))
 *   (func (export "put") (param $at i32) (param $value i32)
 *     (i32.store (local.get $at) (local.get $value)))
 *   (func (export "hold") (param $at i32)
 *     (loop $again (br_if $again (i32.eqz (i32.atomic.load (local.get $at))))))
 *   (func (export "trapIf") (param $condition i32)
 *     (if (local.get $condition) (then unreachable))))
 * ```
 */
const MODULE =
  "AGFzbQEAAAABDwNgAn98AGACf38AYAF/AAIQAQNlbnYGbWVtb3J5AgMBAQMFBAABAgIHHQQDYWRkAAADcHV0" +
  "AAEEaG9sZAACBnRyYXBJZgADCjMEDwAgACAAKwMAIAGgOQMACwkAIAAgATYCAAsOAANAIAD+EAIARQ0ACwsIACAABEAACws=";

/** A team and the memory that it works on. */
export interface Workshop {
  readonly team: Team;
  readonly memory: WebAssembly.Memory;
  /** The memory as float64. */
  readonly numbers: Float64Array<SharedArrayBuffer>;
  /** The memory as int32. */
  readonly words: Int32Array<SharedArrayBuffer>;
}

/** What a workshop may be told. */
export interface WorkshopOptions {
  readonly threads?: number;
  readonly timeoutMs?: number;
  readonly start?: StartThread;
}

/** Compiles the module and starts a team of two threads, if not told otherwise. */
export async function openWorkshop(
  { threads = 2, timeoutMs = 30_000, start }: WorkshopOptions = {},
): Promise<Workshop> {
  const bytes = Uint8Array.from(atob(MODULE), (letter) => letter.charCodeAt(0));
  const module = await WebAssembly.compile(bytes);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
  const kernels = exports as Record<string, (...values: number[]) => void>;
  const team = await createTeam({ module, memory, exports: kernels, threads, timeoutMs }, start);
  const buffer = memory.buffer as unknown as SharedArrayBuffer;
  return { team, memory, numbers: new Float64Array(buffer), words: new Int32Array(buffer) };
}
