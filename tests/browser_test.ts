/** Groups of workers and the Wasm device in a real browser, on a page that may share memory and on one that may not. */

import assert from "node:assert/strict";
import type { Report } from "./browser/page.ts";
import type { WasmReport } from "./browser/wasm_page.ts";
import { type Outcome, train } from "./browser/wasm_worker.ts";
import { hasChromium, ISOLATING, visits } from "./chromium.ts";
import { assertClose } from "./kit.ts";
import { referenceDevice } from "../mod.ts";

const ignore = !(await hasChromium());

Deno.test({
  name: "workers in a browser meet over shared memory where the page may, over ports elsewhere",
  ignore,
  fn: async () => {
    const told = [4, 2, 4].map((half) => ({ total: 6, half, late: "deadline 1" }));
    const [isolated, open] = await visits<Report>(["page", "rank"], [ISOLATING, {}]);
    assert.deepEqual(isolated, { isolated: true, ways: { auto: told, port: told, block: told } });
    assert.deepEqual(open, {
      isolated: false,
      ways: {
        auto: told,
        port: told,
        block: `Cannot join the group as wait "block" needs shared memory: this seat has a port`,
      },
    });
  },
});

Deno.test({
  name:
    "wasmDevice() in a browser has one thread on the main thread, several in an isolated page's workers",
  ignore,
  fn: async () => {
    const [isolated, open] = await visits<WasmReport>(["wasm_page", "wasm_worker"], [
      ISOLATING,
      {},
    ]);
    assert(typeof isolated.page === "object", `${isolated.page}`);
    assert(typeof isolated.worker === "object", `${isolated.worker}`);
    // One thread's results are the same bits wherever it runs; those of two differ in the last ones.
    const { threads, largest } = isolated.page;
    assert.equal(threads, 1);
    const expected = await train(referenceDevice());
    // A few units in the last place of results of about 1.
    const close = { absolute: 2e-6, relative: 0 };
    assertClose(largest, expected, close, "one thread in a browser");
    assert.match(isolated.page.reason ?? "", /this thread may not wait/);
    assert.equal(isolated.worker.reason, null);
    const { reason } = open.page as Outcome;
    const shared = { ...isolated.page, reason };
    assert.match(reason ?? "", /threads may not share memory: .*Cross-Origin-Opener-Policy/);
    assert.deepEqual(open, { page: shared, worker: shared });
    assert.equal(isolated.worker.threads, 2);
    assertClose(isolated.worker.largest, expected, close, "two threads in a browser");
  },
});

Deno.test({
  name:
    "a page whose policy forbids Wasm, or workers from blobs, is told which directive to change",
  ignore,
  fn: async () => {
    const policy = (scripts: string) => ({
      ...ISOLATING,
      "content-security-policy":
        `script-src 'self' ${scripts}; connect-src 'self'; worker-src 'self'`,
    });
    const [noWasm, noBlobs] = await visits<WasmReport>(["wasm_page", "wasm_worker"], [
      policy(""),
      policy("'wasm-unsafe-eval'"),
    ]);
    for (const said of [noWasm.page, noWasm.worker]) {
      assert.match(
        `${said}`,
        /^DeviceError unsupported: .*'wasm-unsafe-eval' to the directive script-src/,
      );
    }
    assert.equal((noBlobs.page as Outcome).threads, 1);
    assert.match(
      `${noBlobs.worker}`,
      /^DeviceError unsupported: .*add blob: to its directive worker-src/,
    );
  },
});
