/** The programs of docs/jax.md, type-checked against jax-js's own types, on four workers. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { blocksIn, textOf } from "../pages.ts";

const root = new URL("../../", import.meta.url);

Deno.test("docs/jax.md: the model trains on four workers, whose losses are equal", async () => {
  const [rank, main] = blocksIn("docs/jax.md", await textOf("docs/jax.md"));
  const { exports } = JSON.parse(await textOf("deno.json"));
  const folder = await Deno.makeTempDir({ prefix: "syncbn_jax_" });
  const resolved = (code: string) =>
    code.replace(
      /"@syncbn\/syncbn(\/\w+)?"/g,
      (_, entry = "") => `"${new URL(exports[`.${entry}`], root)}"`,
    );
  try {
    await Deno.writeTextFile(`${folder}/rank.ts`, resolved(rank.code));
    await Deno.writeTextFile(`${folder}/main.ts`, resolved(main.code));
    const cwd = fileURLToPath(root);
    const deno = async (...args: string[]) => {
      const command = new Deno.Command(Deno.execPath(), { args, cwd, env: { NO_COLOR: "1" } });
      const { success, stdout, stderr } = await command.output();
      assert(success, new TextDecoder().decode(stderr));
      return new TextDecoder().decode(stdout);
    };
    const common = [
      "--quiet",
      "--config=deno.json",
      "--frozen",
      "--lock=tests/adapters/adapters.lock",
    ];
    await deno("check", ...common, `${folder}/rank.ts`, `${folder}/main.ts`);
    const allowed = ["--allow-read", "--allow-env", `${folder}/main.ts`];
    const printed = await deno("run", ...common, ...allowed);
    const losses: number[] = JSON.parse(printed.replace(/,?\s*\]/, "]"));
    assert.deepEqual(losses, new Array(4).fill(losses[0]));
    assert(losses[0] > 0 && losses[0] < 1.5, printed);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
