/** The device suite on one kind of WebGPU handle, which all of its tests share. */

import { deviceSuite } from "./device_suite.ts";
import { inTier } from "./tier.ts";
import { type KitOpening, sharedKit, testsWebgpu } from "./webgpu_kit.ts";

/**
 * Registers it on this runtime's own WebGPU, or one ignored test where there is none.
 *
 * @param describe says how to open the handle
 */
export async function webgpuSuite(
  describe: (gpu: GPU) => KitOpening | Promise<KitOpening>,
): Promise<void> {
  if (!await testsWebgpu()) {
    return Deno.test.ignore("webgpu: the device suite (no adapter)", () => {});
  }
  const { kit, closing } = await sharedKit(navigator.gpu, await describe(navigator.gpu));
  deviceSuite(kit);
  inTier(kit, ({ name, register = Deno.test }) => register(`${name}: the handle closes`, closing));
}
