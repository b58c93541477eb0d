/** How many threads a Wasm device has: one on a page, several in the workers of one that is isolated; and why. */

import assert from "node:assert/strict";
import { wasmDevice } from "../../../kernels/wasm_device.ts";
import { mayBlock, sharesMemory } from "../../../lib/threads.ts";
import { assertTrains } from "../training.ts";

Deno.test("wasmDevice() has as many threads as may be had here, and says why not more", async () => {
  await using device = await wasmDevice({ threads: 2, maximumBytes: 2 ** 28 });
  const { threads, threadsReason } = device.info;
  if (sharesMemory() && mayBlock()) assert.deepEqual([threads, threadsReason], [2, null]);
  else {
    assert.equal(threads, 1);
    assert.match(
      threadsReason ?? "",
      sharesMemory()
        ? /this thread may not wait/
        : /threads may not share memory: .*Cross-Origin-Opener-Policy/,
    );
  }
  await assertTrains(device);
});
