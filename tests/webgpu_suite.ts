/** A suite on one kind of WebGPU handle, which all of its tests share. */

import { deviceSuite } from "./device_suite.ts";
import { type DeviceKit, register } from "./kit.ts";
import { inTier } from "./tier.ts";
import { type KitOpening, sharedKit, testsWebgpu } from "./webgpu_kit.ts";
import { endIdle } from "./webgpu_pool.ts";
import type { WebGpuArray } from "../kernels/webgpu_device.ts";

/**
 * Registers it on this runtime's own WebGPU, or one ignored test where there is none.
 *
 * @param describe says how to open the handle
 * @param suite which one, and its name; the device suite by default
 */
export async function webgpuSuite(
  describe: () => KitOpening,
  { suite, what }: {
    readonly suite: (kit: DeviceKit<WebGpuArray>) => void;
    readonly what: string;
  } = { suite: deviceSuite, what: "the device suite" },
): Promise<void> {
  if (!await testsWebgpu()) return Deno.test.ignore(`webgpu: ${what} (no adapter)`, () => {});
  const { kit, closing } = await sharedKit(navigator.gpu, describe());
  inTier(kit, (kit) => {
    suite(kit);
    register(
      kit,
      what === "the device suite" ? "the handle closes" : `the handle of ${what} closes`,
      async () => {
        await closing();
        endIdle(navigator.gpu);
      },
    );
  });
}
