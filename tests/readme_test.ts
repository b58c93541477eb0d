import assert from "node:assert/strict";
import { batchNormForward, initBatchNorm, referenceDevice, tensor, toArray } from "../mod.ts";

const root = new URL("../", import.meta.url);

Deno.test("the README's examples run as printed, with no permission, and print what they say", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);
  const device = referenceDevice();
  const whole = tensor(device, [1, 2, 3, 4, 5, 6], [6, 1]);
  const { output } = batchNormForward(initBatchNorm(device, 1), whole, { device });
  const expected = [[...await toArray(device, output)], 1, undefined, undefined];
  assert.equal(examples.length, expected.length);
  for (const [i, code] of examples.entries()) {
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
    const printed = text.decode(stdout).trim();
    assert.deepEqual(printed === "" ? undefined : JSON.parse(printed), expected[i]);
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
