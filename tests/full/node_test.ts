/** The library in Node 20, 22 and 24, whichever Node the machine itself has. */

import { demanded } from "../demanded.ts";
import { DAWN } from "../load_dawn.ts";
import { bundleSuites, has, inFolder, install, nodePackages, runSuites } from "../node/node.ts";
import { isRun } from "../tier.ts";

const hasNpm = await has("npm");

if (!isRun("full")) {
  Deno.test.ignore("node: 1 test left to the full tier", () => {});
} else {
  Deno.test({
    name: "node: groups, Wasm, WebGPU by Dawn in Node 20, 22 and 24",
    ignore: !hasNpm && !demanded("node"),
    fn: (t) =>
      inFolder(async (folder) => {
        await install(folder, { ...nodePackages(), webgpu: DAWN });
        const suites = `${folder}/suites`;
        await bundleSuites(suites);
        for (
          const [name, everything] of [["node20", true], ["node22", false], [
            "node24",
            false,
          ]] as const
        ) {
          const node = `${folder}/node_modules/${name}/bin/node`;
          const dawn = `${folder}/node_modules/webgpu/index.js`;
          await t.step(name, (t) => runSuites(t, node, suites, { everything, dawn }));
        }
      }),
  });
}
