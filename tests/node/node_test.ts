/** The library in the machine's own Node; tests/full/node_test.ts has the oldest and the newest. */

import { bundleSuites, has, inFolder, runSuites } from "./node.ts";

Deno.test({
  name: "Node: blocking workers, their mishaps, Wasm on threads, checkpoints",
  ignore: !await has("node"),
  fn: (t) =>
    inFolder(async (folder) => {
      await bundleSuites(folder);
      await runSuites(t, "node", folder, { everything: false });
    }),
});
