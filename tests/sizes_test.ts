/** What each entry point weighs in a bundle, as package/README.md says it. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

const ROOT = new URL("../", import.meta.url);
/** Parts of entry points that have a line of their own. */
const PARTS: Readonly<Record<string, readonly string[]>> = {
  "forward and backward": ["batchNormForward", "batchNormBackward"],
  "with their collectives": ["syncBatchNormForward", "syncBatchNormBackward"],
};
/** Most bytes that the first part may ever have. */
const SMALLEST = 19_200;
/** Who makes a bundle lighter than this part of its line changes the line too. */
const LEAST = 0.85;

async function bundle(folder: string, name: string, source: string): Promise<number> {
  const [from, to] = [`${folder}/${name}.ts`, `${folder}/${name}.js`];
  await Deno.writeTextFile(from, source);
  const args = ["bundle", "--quiet", "--minify", "--platform=browser", "-o", to, from];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    ...{ args, cwd: fileURLToPath(ROOT) },
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return (await Deno.stat(to)).size;
}

Deno.test("every bundle weighs what the table of the package says, and no more", async () => {
  const { exports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT)));
  const page = await Deno.readTextFile(new URL("package/README.md", ROOT));
  const lines = [...page.matchAll(/^\| `?([^|`]+?)`? +\| ([\d.]+) +\| \S/gm)];
  const table = new Map(lines.map(([, name, most]) => [name, 1000 * Number(most)]));
  assert.deepEqual(
    [...table.keys()].sort(),
    [...Object.keys(PARTS), ...Object.keys(exports)].sort(),
  );
  const folder = await Deno.makeTempDir({ prefix: "syncbn_sizes_" });
  try {
    await Promise.all([...table].map(async ([name, most], i) => {
      const module = JSON.stringify(new URL(exports[name] ?? exports["."], ROOT));
      const names = PARTS[name] ? `{ ${PARTS[name]} }` : "*";
      const bytes = await bundle(folder, `bundle${i}`, `export ${names} from ${module};`);
      const what = `${name} has ${bytes} bytes, and ${most} in package/README.md`;
      assert(bytes <= most, `${what}: say there why it is heavier`);
      assert(bytes >= LEAST * most, `${what}: it may say less`);
    }));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  assert(table.get("forward and backward")! <= SMALLEST);
});
