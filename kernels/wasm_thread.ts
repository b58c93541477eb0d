/**
 * A thread of the Wasm device in a worker of the caller's own: for pages whose Content-Security-Policy allows no workers
 * from `blob:` URLs. Its address, or a function that starts it, is the option `threadsFrom` of `wasmDevice`.
 *
 * @example thread.ts, and the module that opens the device
 * ```ts ignore
 * // thread.ts
 * import { serveThread } from "@syncbn/syncbn/wasm-thread";
 *
 * serveThread();
 *
 * // train.ts
 * import { wasmDevice } from "@syncbn/syncbn/wasm";
 *
 * const threadsFrom = () => new Worker(new URL("./thread.ts", import.meta.url), { type: "module" });
 * await using device = await wasmDevice({ threads: 2, threadsFrom });
 * ```
 *
 * @module
 */

import { helper, type HelperPort } from "./wasm/threads/helper.ts";
import { LAYOUT } from "./wasm/threads/protocol.ts";

/**
 * Serves one thread of a Wasm device: to be called once, at the top level of a worker's module. The device that starts the
 * worker ends it.
 *
 * @example
 * ```ts ignore
 * import { serveThread } from "@syncbn/syncbn/wasm-thread";
 *
 * serveThread();
 * ```
 */
export function serveThread(): void {
  helper(globalThis as unknown as HelperPort, LAYOUT);
}
