import assert from "node:assert/strict";

const root = new URL("../", import.meta.url);
const text = new TextDecoder();

async function versionOfNode(): Promise<string | null> {
  try {
    const { stdout } = await new Deno.Command("node", { args: ["--version"] }).output();
    return text.decode(stdout).trim();
  } catch {
    return null;
  }
}

Deno.test({
  name: "a browser bundle of the library is plain JavaScript that runs outside Deno",
  ignore: await versionOfNode() === null,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const bundle = await new Deno.Command(Deno.execPath(), {
        args: ["bundle", "--quiet", "--platform=browser", "-o", `${folder}/syncbn.mjs`, "mod.ts"],
        cwd: root,
      }).output();
      assert(bundle.success, text.decode(bundle.stderr));
      const source = await Deno.readTextFile(`${folder}/syncbn.mjs`);
      assert.doesNotMatch(source, /\b(Deno|navigator|process|require)\b/);
      await Deno.writeTextFile(
        `${folder}/main.mjs`,
        `import * as bn from "./syncbn.mjs";
         const device = bn.referenceDevice();
         const state = bn.initBatchNorm(device, 1, { eps: 0 });
         const parts = [[1], [], [3]];
         const ranks = await bn.runRanks(3, async (group) => {
           const part = parts[group.rank];
           const x = bn.tensor(device, part, [part.length, 1]);
           const forward = await bn.syncBatchNormForward(state, x, { device, group });
           const { gradInput } = await bn.syncBatchNormBackward(forward.residuals, x, { device, group });
           return [...await bn.toArray(device, forward.output), ...await bn.toArray(device, gradInput)];
         });
         console.log(JSON.stringify(ranks));`,
      );
      const node = await new Deno.Command("node", { args: ["main.mjs"], cwd: folder }).output();
      assert(node.success, text.decode(node.stderr));
      assert.deepEqual(JSON.parse(text.decode(node.stdout)), [[-1, 0], [], [1, 0]]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
