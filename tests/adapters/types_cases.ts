/** The adapters by the frameworks' own types: all in one check, since each reads the library's and a framework's anew. */

import { programsOf, withPrograms } from "./docs_programs.ts";

const ROOT = new URL("../../", import.meta.url);
const TFJS = `
import type * as tfjs from "npm:@tensorflow/tfjs@4.22.0";
import { inProcessGroup } from "${new URL("mod.ts", ROOT)}";
import * as adapter from "${new URL("lib/adapters/tfjs.ts", ROOT)}";
import type { WasmDevice } from "${new URL("kernels/wasm_device.ts", ROOT)}";
declare const tf: typeof tfjs;
declare const x: tfjs.Tensor4D;
declare const gamma: tfjs.Tensor1D;
declare const sequential: tfjs.Sequential;
declare const device: WasmDevice;
const [group] = inProcessGroup(1);
const { y, mean } = adapter.syncBatchNorm(tf, x, { gamma }, group, { axis: 1, device });
const four: tfjs.Tensor4D = y;
const any: tfjs.Tensor = mean;
const model: tfjs.Sequential = await adapter.convertSyncBatchNorm(tf, sequential, group, { device });
const plain: tfjs.LayersModel = await adapter.revertSyncBatchNorm(tf, model as tfjs.LayersModel);
adapter.broadcastWeights(tf, plain, group);
const replica: tfjs.Sequential = adapter.replicate(tf, model, group, { whenOut: "shadow" });
const [xs, ys]: tfjs.Tensor[] = adapter.shareOf([four, any], 2, [2], group.rank);
await replica.fit(xs, ys);
`;

Deno.test("the adapters take TensorFlow.js and jax-js by their own types, those of docs/jax.md as printed", async () => {
  const programs = new Map([...await programsOf("docs/jax.md"), ["tfjs_types.ts", TFJS]]);
  await withPrograms(programs, async (run) => {
    await run("check", ...programs.keys());
  });
});
