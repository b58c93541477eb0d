/** The blocks of docs/ that are parts of a larger program, or programs of several files: tests/pages.ts cannot run them. */

import assert from "node:assert/strict";
import { hasMpi, launch, withFolder } from "../mpi_kit.ts";
import { fullTests } from "../tier.ts";

const test = fullTests("pages");

const root = new URL("../../", import.meta.url);

/** The code of a page's blocks, in order, those that are no tests by themselves included. */
async function blocks(page: string): Promise<string[]> {
  const text = await Deno.readTextFile(new URL(`docs/${page}.md`, root));
  return [...text.matchAll(/^```ts(?: ignore)?\n(.*?)^```$/gms)].map(([, code]) => code);
}

/** The one block of a page in which a text occurs. */
async function block(page: string, text: string): Promise<string> {
  const found = (await blocks(page)).filter((code) => code.includes(text));
  assert.equal(found.length, 1, `docs/${page}.md should have one block with ${text}`);
  return found[0];
}

/** A program's lines without how far they are indented. */
function lines(code: string): string {
  return code.split("\n").map((line) => line.trim()).filter(Boolean).join("\n");
}

/** Runs Deno in a folder of some files, with the package's names as a user's import map has them; what each run prints. */
async function deno(files: Record<string, string>, ...runs: string[][]): Promise<string[]> {
  const { exports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  const names = Object.entries<string>(exports)
    .map(([name, file]) => [`@syncbn/syncbn${name.slice(1)}`, new URL(file, root).href]);
  const config = JSON.stringify({ imports: Object.fromEntries(names) });
  const cwd = await Deno.makeTempDir({ prefix: "syncbn_docs_" });
  try {
    for (const [name, code] of Object.entries({ ...files, "deno.json": config })) {
      await Deno.writeTextFile(`${cwd}/${name}`, code);
    }
    const printed = [];
    for (const args of runs) {
      const env = { NO_COLOR: "1" };
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd, env })
        .output();
      const text = new TextDecoder();
      assert.equal(code, 0, text.decode(stderr));
      printed.push(text.decode(stdout).trim());
    }
    return printed;
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
}

/** What a program of one file prints, run without a permission. */
async function printed(program: string): Promise<string> {
  const [shown] = await deno({ "main.ts": program }, ["run", "--no-prompt", "main.ts"]);
  return shown;
}

test("docs/groups.md: its workers make of a batch what the README's tasks of one thread make of it", async () => {
  const rank = await block("groups", "// rank.ts");
  const main = await block("groups", "// main.ts");
  // Checked apart: each worker would check its module by itself.
  const [, workers] = await deno(
    { "rank.ts": rank, "main.ts": main },
    ["check", "rank.ts", "main.ts"],
    ["run", "--no-prompt", "--allow-read", "main.ts"],
  );
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const [, tasks] = /^```ts\n(.*?)^```$/ms.exec(readme) ?? [];
  assert(tasks.includes("runRanks(4"));
  const [ours, theirs] = [workers, await printed(tasks)].map((shown) =>
    JSON.parse(shown) as number[]
  );
  assert.equal(theirs.length, 6);
  // The one on Wasm, the other on the reference device: two units of the last place of values below 2.
  for (const [i, value] of ours.entries()) {
    assert(Math.abs(value - theirs[i]) <= 2 * 2 ** -23, `${ours} for ${theirs}`);
  }
});

test("README: its training loop frees what it replaces", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", root));
  const blocks = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);
  const loop = blocks.find((code) => code.includes("step < 100"));
  assert(loop);
  // 16 KiB of a new state on each rank in every step: 8 MiB would be full after some 250.
  const changes = [
    ["wasmDevice()", "wasmDevice({ maximumBytes: 8 << 20 })"],
    ["initBatchNorm(device, 2)", "initBatchNorm(device, 1024)"],
    ["step < 100", "step < 1000"],
    [
      "rows[group.rank], [2, 2]",
      "rows[group.rank].flatMap((row) => Array(512).fill(row)), [2, 1024]",
    ],
  ];
  const wide = changes.reduce((code, [from, to]) => {
    assert.equal(code.split(from).length, 2, from);
    return code.replace(from, to);
  }, loop);
  assert.equal(await printed(wide), "1000");
  const replace = ", { replace: state }";
  assert(wide.includes(replace));
  const leaking = printed(wide.replace(replace, ""));
  await assert.rejects(leaking, /DeviceError.*(memory|bytes)/i);
});

test("README: its table of speed is that of bench/README.md", async () => {
  const [readme, bench] = await Promise.all(
    ["README.md", "bench/README.md"].map((page) => Deno.readTextFile(new URL(page, root))),
  );
  const cells = (line: string) => line.split("|").slice(1, -1).map((cell) => cell.trim());
  const [, table] = /^(\| float32 batch .*?)\n\n/ms.exec(readme) ?? [];
  const [, , ...rows] = table.split("\n").map(cells);
  assert.equal(rows.length, 4);
  for (const [shape, ours, ...theirs] of rows) {
    const measured = bench.split("\n### ")
      .filter((section) => section.startsWith(`${shape.replace("], ", "] ")}\n`))
      .flatMap((section) => section.split("\n").map(cells))
      .filter(([, threads]) => threads === "1");
    // Who, threads, forward, GB/s, times ours; forward and backward, GB/s, times ours; errors.
    const shown = (names: string) => {
      const found = measured.filter(([who]) => new RegExp(`^(${names})$`).test(who));
      const [best] = found.sort((a, b) => Number(a[7]) - Number(b[7]));
      return { ms: best[5].split(" ")[0], times: best[7] };
    };
    assert.equal(ours, shown("syncbn").ms, shape);
    const peers = ["PyTorch", "onnxruntime-node, .*", "tfjs wasm"].map(shown);
    assert.deepEqual(theirs, peers.map(({ ms, times }) => `${ms} (${times})`), shape);
  }
});

for (const family of ["Open MPI", "MPICH"] as const) {
  test(`docs/groups.md: its two processes meet under ${family}`, async () => {
    const code = await block("groups", "// sum.ts");
    const [, flags] = /(--allow-ffi .*) sum\.ts$/m.exec(code) ?? [];
    await withFolder(async (folder) => {
      await Deno.writeTextFile(`${folder}/sum.ts`, code);
      const permissions = flags.split(" ");
      const shown = await launch(family, 2, [`${folder}/sum.ts`], { permissions, folder });
      assert.equal(shown.code, 0, shown.stderr);
      assert.equal(shown.stdout, "3\n3\n");
    });
  }, { ignore: !(await hasMpi(family)) });
}

test("docs/devices.md: its step beside kernels of one's own is that of the whole program", async () => {
  const program = await Deno.readTextFile(new URL("examples/own_kernels.ts", root));
  const step = await block("devices", "launch(linear,");
  assert(lines(program).includes(lines(step)));
  const page = await Deno.readTextFile(new URL("docs/devices.md", root));
  assert.match(
    page,
    new RegExp(`own_kernels.ts\\), ${program.trimEnd().split("\n").length} lines`),
  );
});

test("docs/pytorch.md: its two programs are the examples that run on every group", async () => {
  for (
    const [file, start] of [
      ["layers.ts", "const ranks = await bn.runRanks(4, async (world) => {"],
      ["convert.ts", "async function train("],
    ]
  ) {
    const from = (await block("pytorch", start)).split("\n");
    const body = from.slice(from.findIndex((line) => line.startsWith(start)) + 1);
    const inside = body.slice(0, body.findIndex((line) => line.startsWith("}")));
    assert(inside.length > 10);
    const program = await Deno.readTextFile(new URL(`examples/pytorch/${file}`, root));
    assert(lines(program).includes(lines(inside.join("\n"))), file);
  }
});

// Run once here, not by docs_test.ts too, and with a quarter of the rows: it draws 31.5 million numbers on each rank.
test("docs/pytorch.md: its layers run as printed, but for a quarter of the page's rows", async () => {
  const code = await block("pytorch", "[20, 100, 35, 45, 10]");
  const examples = new URL("examples/", root).href;
  const means: number[] = JSON.parse(
    await printed(code.replaceAll("../examples/", examples).replace("[20, 100,", "[5, 100,")),
  );
  // Of a mean of 157,500 normal numbers the running mean is a tenth.
  assert(means.every((mean) => mean !== 0 && Math.abs(mean) < 0.1 * 5 / Math.sqrt(157_500)));
  assert.deepEqual(means, [means[0], means[0], means[3], means[3]]);
  assert.notEqual(means[0], means[3]);
});
