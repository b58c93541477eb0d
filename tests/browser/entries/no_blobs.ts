/** A page whose policy allows Wasm, and workers from its own addresses alone. */

import assert from "node:assert/strict";
import { requestDevice } from "../../../kernels/request_device.ts";
import { wasmDevice } from "../../../kernels/wasm_device.ts";
import { spawnWorkers } from "../../../lib/groups/workers.ts";
import { mayBlock } from "../../../lib/threads.ts";
import type { Seen } from "../rank.ts";
import { assertTrains } from "../training.ts";

const threadsFrom = new URL("../thread.ts", import.meta.url);

Deno.test("one thread needs 'wasm-unsafe-eval' alone, and requestDevice() takes it", async () => {
  await using device = await requestDevice();
  assert.equal(device.kind, "wasm");
  await assertTrains(device);
});

if (mayBlock()) {
  Deno.test("wasmDevice() names the directive that threads lack, and the way without it", async () => {
    const message = /add blob: to its directive worker-src .*threadsFrom/;
    const told = { name: "DeviceError", code: "unsupported", message };
    await assert.rejects(wasmDevice({ threads: 2 }), told);
    await assert.rejects(requestDevice({ wasm: { threads: 2 } }), told);
  });
}

for (
  const [what, from] of Object.entries({
    "an address": threadsFrom,
    "a function": () => new Worker(threadsFrom, { type: "module" }),
  })
) {
  Deno.test(`threads from ${what} of the caller's need no blob:`, async () => {
    await using device = await wasmDevice({ threads: 2, threadsFrom: from });
    assert.equal(device.info.threads, mayBlock() ? 2 : 1);
    await assertTrains(device);
  });
}

Deno.test("ranks in workers need no directive but worker-src 'self'", async () => {
  const seen = await spawnWorkers<number, Seen>(new URL("../rank.ts", import.meta.url), 2, {
    ...{ timeoutMs: 300, parameter: 300 },
  });
  assert.deepEqual(seen.map(({ total }) => total), [3, 3]);
});
