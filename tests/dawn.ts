/**
 * What any pass must do, and what is WebGPU's own, on Dawn: another implementation, in a runtime whose own is something else.
 *
 * Run by `deno task test:dawn`, which may load native code, and not with the other tests. The adapter is what Dawn
 * finds: a GPU, or a software one that VK_ICD_FILENAMES names, which is slow, and keeps nothing that it has compiled. So long
 * loops, large tensors and what the host asks of a GPU are left to the runtime's own. Of weights and second order there are
 * others' numbers here, and modulation and renormalization are made of kernels that all else has.
 */

import { handlingSuite, numberSuite } from "./device_suite.ts";
import { secondOrderGoldenSuite } from "./suites/golden_second_order.ts";
import { weightsGoldenSuite } from "./suites/weights_golden.ts";
import { bindingTests } from "./webgpu/bindings.ts";
import { digitTests } from "./webgpu/digits.ts";
import { failureTests } from "./webgpu/failures.ts";
import { maskTests } from "./webgpu/masks.ts";
import { numberTests } from "./webgpu/numbers.ts";
import { shaderTests } from "./webgpu/shaders.ts";
import { demanded } from "./demanded.ts";
import { loadDawn } from "./load_dawn.ts";
import { opener, sharedKit } from "./webgpu_kit.ts";

const NAME = "webgpu (Dawn)";

/** How many looks for what is awaited are due. */
let looks = 0;

/** Registers a test that ends once Dawn looks no more: the timer of its last look would be taken for a leak of the test's. */
function register(name: string, body: () => void | Promise<void>): void {
  Deno.test(name, async () => {
    await body();
    for (let turn = 0; looks > 0 && turn < 1000; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  });
}

/** Dawn's implementation where it can be loaded and has an adapter. */
async function dawnWithAdapter(): Promise<GPU | null> {
  const { state } = await Deno.permissions.query({ name: "ffi" });
  if (state !== "granted") return null;
  // While anything is awaited, Dawn looks for it again and again by setImmediate, and each look leaves the garbage
  // collector something to find by a linear search: after the long waits of a software adapter it stands still for
  // seconds. A millisecond between two looks is nothing to such an adapter.
  const setImmediate = (look: () => void) => {
    looks++;
    setTimeout(() => {
      looks--;
      look();
    }, 1);
  };
  Object.assign(globalThis, { setImmediate });
  const gpu = await loadDawn();
  return await gpu.requestAdapter() ? gpu : null;
}

const dawn = await dawnWithAdapter();
if (dawn) {
  const { kit, closing } = await sharedKit(dawn, { name: NAME, everything: true, cases: 5 });
  const registered = { ...kit, register };
  numberSuite(registered);
  handlingSuite(registered);
  secondOrderGoldenSuite(registered);
  weightsGoldenSuite(registered);
  register(`${NAME}: the handle closes`, closing);
  const opens = opener(dawn, { name: NAME, register });
  failureTests(opens);
  bindingTests(opens);
  numberTests(opens);
  digitTests(opens);
  shaderTests(opens);
  maskTests(opens);
  opens.ending();
} else if (demanded("dawn")) {
  Deno.test(`${NAME}: everything`, () => {
    throw new Error("this run demands Dawn, which could not be loaded or has no adapter");
  });
} else {
  Deno.test.ignore(`${NAME}: everything (not loaded, or no adapter)`, () => {});
}
