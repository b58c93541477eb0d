import assert from "node:assert/strict";
import { LARGEST_DIFFERENCE } from "../examples/page/report.ts";
import { batchNormForward, initBatchNorm, referenceDevice, tensor, toArray } from "../mod.ts";

const root = new URL("../", import.meta.url);

Deno.test("the README's examples run as printed, with no permission, and print what they say", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);
  const device = referenceDevice();
  const whole = tensor(device, [1, 2, 3, 4, 5, 6], [6, 1]);
  const { output } = batchNormForward(initBatchNorm(device, 1), whole, { device });
  const alone = [...await toArray(device, output)];
  const is = (expected: unknown) => (shown: unknown) => assert.deepEqual(shown, expected);
  const checks = [
    is(alone),
    is(1),
    (shown: unknown) => assert(typeof shown === "number" && shown <= LARGEST_DIFFERENCE),
    (shown: unknown) =>
      assert.deepEqual(shown, ["stem.norm.running_mean", "stem.norm.running_var"]),
    is(undefined),
    is(24_576),
    (shown: unknown) => {
      assert(Array.isArray(shown) && shown.length === 2);
      // An inverse root and a division of WGSL, as in the device suite's kit of WebGPU: 8 units.
      assert(shown.every((value, i) => Math.abs(value - [-1, 1][i]) <= 8 * 2 ** -23), `${shown}`);
    },
    is(undefined),
  ];
  assert.equal(examples.length, checks.length);
  for (const [i, code] of examples.entries()) checks[i](await shown(code));
});

// Its block is no test of `deno test --doc`, so that the page's 31.5 million numbers on each rank are drawn once.
Deno.test("the README's layers of PyTorch's page run as printed, at the page's own size", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const [, code] =
    /^```ts ignore\n(import[^`]*from "\.\/examples\/page\/.*?)^```$/ms.exec(readme) ?? [];
  assert(code);
  const means = await shown(code) as number[];
  // Of a mean of 630,000 normal numbers the running mean is a tenth.
  assert(means.every((mean) => mean !== 0 && Math.abs(mean) < 0.1 * 5 / Math.sqrt(630_000)));
  assert.deepEqual(means, [means[0], means[0], means[3], means[3]]);
  assert.notEqual(means[0], means[3]);
});

Deno.test("the README's blocks of PyTorch's page are the examples that run on every group", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const lines = (text: string) => text.split("\n").map((line) => line.trim()).join("\n");
  for (
    const [file, start] of [
      ["layers.ts", "const ranks = await bn.runRanks(4, async (world) => {"],
      ["convert.ts", "async function train("],
    ]
  ) {
    const from = readme.slice(readme.indexOf(start)).split("\n").slice(1);
    const body = from.slice(0, from.findIndex((line) => line.startsWith("}")));
    assert(body.length > 10);
    const program = await Deno.readTextFile(new URL(`examples/page/${file}`, root));
    assert(lines(program).includes(lines(body.join("\n"))), file);
  }
});

Deno.test("the README's step beside kernels of one's own is that of the whole program", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const program = await Deno.readTextFile(new URL("examples/own_kernels.ts", root));
  const [, step] = /^```ts ignore\n(launch\(.*?)^```$/ms.exec(readme) ?? [];
  assert(step);
  const lines = (text: string) => text.split("\n").map((line) => line.trim()).filter(Boolean);
  assert(lines(step).length <= 10);
  assert(lines(program).join("\n").includes(lines(step).join("\n")));
  assert.match(readme, new RegExp(`${program.trimEnd().split("\n").length} lines`));
});

Deno.test("the README's workers train what its tasks of one thread train", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const [, definitions, tasks] =
    /^```ts\n(import \{\n {2}addScaled,.*?)^(const states.*?)^console/ms.exec(readme) ?? [];
  const [, served, spawned] =
    /^```ts ignore\n\/\/ rank\.ts\n(.*?)\/\/ main\.ts\n(.*?)^```$/ms.exec(readme) ?? [];
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

/** What an example prints, as JSON, with no permission; undefined for nothing. */
async function shown(code: string): Promise<unknown> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--check", "--ext=ts", "-"],
    cwd: root,
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(code));
  await writer.close();
  const { code: exitCode, stdout, stderr } = await child.output();
  const text = new TextDecoder();
  const complaints = text.decode(stderr);
  assert.equal(exitCode, 0, complaints);
  assert.doesNotMatch(complaints, /assertion/i);
  const output = text.decode(stdout).trim();
  return output === "" ? undefined : JSON.parse(output);
}

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
