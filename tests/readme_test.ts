import assert from "node:assert/strict";
import { type Block, blocks, run, textOf } from "./pages.ts";

const root = new URL("../", import.meta.url);

/** Blocks of the pages that are more than what `docs_test.ts` makes of each: parts of programs, programs of several files. */
async function blockWith(part: string): Promise<Block> {
  const found = (await blocks()).filter(({ code }) => code.includes(part));
  assert.equal(found.length, 1, `blocks with ${part}`);
  return found[0];
}

const stripped = (text: string) => text.split("\n").map((line) => line.trim()).filter(Boolean);

// It is marked as no program, so that the page's 31.5 million numbers on each rank are drawn once.
Deno.test("the layers of PyTorch's page run as printed, at the page's own size", async () => {
  const block = await blockWith("const shape = [20, 100, 35, 45, 10];");
  const outcome = (await run([block])).get(block);
  assert.equal(outcome?.error, null);
  assert.equal(outcome.printed.length, 1);
  const means: number[] = JSON.parse(outcome.printed[0]);
  // Of a mean of 630,000 normal numbers the running mean is a tenth.
  assert(means.every((mean) => mean !== 0 && Math.abs(mean) < 0.1 * 5 / Math.sqrt(630_000)));
  assert.deepEqual(means, [means[0], means[0], means[3], means[3]]);
  assert.notEqual(means[0], means[3]);
});

Deno.test("the blocks of PyTorch's page are the examples that run on every group", async () => {
  for (
    const [file, start] of [
      ["layers.ts", "const ranks = await bn.runRanks(4, async (world) => {"],
      ["convert.ts", "async function train("],
    ]
  ) {
    const { code } = await blockWith(start);
    const from = code.slice(code.indexOf(start)).split("\n").slice(1);
    const body = from.slice(0, from.findIndex((line) => line.startsWith("}")));
    assert(body.length > 10);
    const program = await textOf(`examples/page/${file}`);
    assert(stripped(program).join("\n").includes(stripped(body.join("\n")).join("\n")), file);
  }
});

Deno.test("the step beside kernels of one's own is that of the whole program", async () => {
  const { page, code } = await blockWith("launch(linear, ");
  const program = await textOf("examples/own_kernels.ts");
  assert(stripped(code).length <= 10);
  assert(stripped(program).join("\n").includes(stripped(code).join("\n")));
  assert.match(await textOf(page), new RegExp(`${program.trimEnd().split("\n").length} lines`));
});

Deno.test("the workers train what the tasks of one thread train", async () => {
  const [, definitions, tasks] = /^(.*?)^(const states.*?)^console/ms
    .exec((await blockWith("async function trainStep(")).code) ?? [];
  const [, served, spawned] = /^\/\/ rank\.ts\n(.*?)\/\/ main\.ts\n(.*)$/s
    .exec((await blockWith("// rank.ts\nserveRank(")).code) ?? [];
  assert(definitions && tasks && served && spawned);
  const print = "console.log(states.map((state) => [...state.runningMean ?? []]).join());\n";
  const toHost = "(await Promise.all(states.map((state) => stateToHost(device, state))))";
  const programs = {
    "rank.ts": definitions + served,
    "workers.ts": spawned + print,
    "tasks.ts": definitions + tasks + print.replace("states", toHost),
  };
  const cwd = await Deno.makeTempDir({ prefix: "syncbn_readme_" });
  try {
    for (const [name, code] of Object.entries(programs)) {
      const imports = `import { type BatchNormState, stateToHost } from "@syncbn/syncbn";
        import { serveRank, spawnWorkers } from "${new URL("lib/groups/workers.ts", root)}";\n`;
      const resolved = (imports + code).replaceAll(
        '"@syncbn/syncbn"',
        `"${new URL("mod.ts", root)}"`,
      );
      await Deno.writeTextFile(`${cwd}/${name}`, resolved);
    }
    const [workers, oneThread] = [await printed(cwd, "workers.ts"), await printed(cwd, "tasks.ts")];
    assert.match(oneThread, /^0\.\d+,/);
    assert.equal(workers, oneThread);
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
});

/** What a program prints. */
async function printed(cwd: string, name: string): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--check", "--allow-read", name],
    cwd,
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder();
  assert.equal(code, 0, text.decode(stderr));
  return text.decode(stdout);
}
