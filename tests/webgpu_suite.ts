/** A suite on one kind of WebGPU handle, which all of its tests share. */

import { type DeviceKit, register } from "./kit.ts";
import { inTier } from "./tier.ts";
import { type KitOpening, sharedKit, testsWebgpu } from "./webgpu_kit.ts";
import { endIdle } from "./webgpu_pool.ts";
import type { WebGpuArray } from "../kernels/webgpu_device.ts";

/** All that the adapter has, large tensors in windows of 1 MiB, at length. */
export const everything = (): KitOpening => ({
  ...{ name: "webgpu", tier: "full", everything: true, giants: true },
  ...{ cases: 60, ways: 6 },
  options: { maxBindingBytes: 2 ** 20 },
});

/**
 * Registers it on this runtime's own WebGPU, or one ignored test where there is none.
 *
 * @param describe says how to open the handle
 * @param suite which one, and its name
 */
export async function webgpuSuite(
  describe: () => KitOpening,
  { suite, what }: {
    readonly suite: (kit: DeviceKit<WebGpuArray>) => void;
    readonly what: string;
  },
): Promise<void> {
  if (!await testsWebgpu()) return Deno.test.ignore(`webgpu: ${what} (no adapter)`, () => {});
  const { kit, closing } = await sharedKit(navigator.gpu, describe());
  inTier(kit, (kit) => {
    suite(kit);
    register(kit, `the handle of ${what} closes`, async () => {
      await closing();
      endIdle(navigator.gpu);
    });
  });
}
