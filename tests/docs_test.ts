import assert from "node:assert/strict";
import { batchNormForward, initBatchNorm, referenceDevice, tensor, toArray } from "../mod.ts";
import { LARGEST_DIFFERENCE } from "../examples/pytorch/report.ts";
import { type Block, blocks, blocksIn, type Outcome, pages, run, said, textOf } from "./pages.ts";

const root = new URL("../", import.meta.url);

/** Blocks that do not run as they stand, by a part of them, and what tests them. */
const ELSEWHERE: readonly (readonly [part: string, test: string])[] = [
  ["await jax.init(", "tests/adapters/jax_docs_cases.ts"],
  ["// jax-js keeps threads", "tests/adapters/jax_docs_cases.ts"],
  ["// thread.ts\n", "tests/browser/thread.ts"],
  ["const shape = [20, 100, 35, 45, 10];", "tests/full/docs_programs_test.ts"],
  ["launch(linear, ", "tests/full/docs_programs_test.ts"],
  ["// rank.ts\n", "tests/full/docs_programs_test.ts"],
  ["// main.ts: ", "tests/full/docs_programs_test.ts"],
  ["// sum.ts: ", "tests/full/docs_programs_test.ts"],
  [`import { create } from "npm:webgpu@`, "tests/dawn.ts"],
  ["// tfjs_main.ts\n", "tests/adapters/tfjs_docs_cases.ts"],
  ["// tfjs_rank.ts\n", "tests/adapters/tfjs_docs_cases.ts"],
  ["// tfjs_penalty.ts\n", "tests/adapters/tfjs_docs_cases.ts"],
  ["// second.ts\n", "tests/adapters/jax_docs_cases.ts"],
  ["createTrainer(tf, model, { group, device })", "tests/adapters/trainer_runs.ts"],
  ["new WebGPUBackend(gpuDevice, gpuDevice.adapterInfo)", "tests/adapters/trainer_webgpu_cases.ts"],
  [
    "convertSyncBatchNorm(tf, makeModel(tf), group, { device })",
    "tests/adapters/tfjs_law_cases.ts",
  ],
];

/** What blocks print that say so in words, by a part of the call. */
const IN_WORDS:
  readonly (readonly [part: string, check: (printed: string) => Promise<void> | void])[] = [
    ["console.log(outputs.flat())", async (printed) => {
      const device = referenceDevice();
      const whole = tensor(device, [1, 2, 3, 4, 5, 6], [6, 1]);
      const { output } = batchNormForward(initBatchNorm(device, 1), whole, { device });
      assert.deepEqual(JSON.parse(printed), [...await toArray(device, output)]);
    }],
    ["value - replicas[0][i]", (printed) => assert(Number(printed) <= LARGEST_DIFFERENCE, printed)],
    [
      `name.startsWith("stem.norm.run")`,
      (printed) =>
        assert.deepEqual(JSON.parse(printed), ["stem.norm.running_mean", "stem.norm.running_var"]),
    ],
    ["Promise.all([rank(0), rank(1)])", (printed) => {
      const values = [...printed.matchAll(/\[ ([\d.]+) \]/g)].map(([, value]) => Number(value));
      assert.deepEqual(values, [Math.fround(0.325), Math.fround(0.325)]);
    }],
  ];

const all = await blocks();
const programs = all.filter(({ info }) => info === "ts");
let outcomes: ReturnType<typeof run> | undefined;

/** All blocks run once, when the first of their tests asks. */
async function outcomeOf(block: Block): Promise<Outcome> {
  const outcome = (await (outcomes ??= run(programs))).get(block);
  assert(outcome);
  return outcome;
}

/** Whether the blocks find one; asked when they have run, since a driver takes half a second to load. */
async function hasAdapter(): Promise<boolean> {
  return await navigator.gpu?.requestAdapter() !== null;
}

for (const block of programs) {
  Deno.test(`${block.page}:${block.line} runs as printed, and prints what it says`, async () => {
    const { printed, error } = await outcomeOf(block);
    assert.equal(error, null);
    const calls = said(block.code);
    // What looks for an adapter may have nothing to do where there is none.
    if (block.code.includes("requestAdapter()") && !await hasAdapter() && printed.length === 0) {
      return;
    }
    assert.equal(printed.length, calls.length, "each console.log prints once");
    for (const [i, { call, comment }] of calls.entries()) {
      const check = IN_WORDS.find(([part]) => call.includes(part))?.[1];
      if (check) await check(printed[i]);
      else assert(isSaid(comment, printed[i]), `${call} printed ${printed[i]}, not ${comment}`);
    }
  });
}

/** Whether a comment is what was printed, to its end or to where words go on. */
function isSaid(comment: string | null, printed: string): boolean {
  return comment === printed || (comment !== null && /^[,:;]/.test(comment.slice(printed.length)) &&
    comment.startsWith(printed));
}

Deno.test("every block of the pages is a program that runs, or is tested elsewhere, or is no program", async () => {
  for (const { page, line, info, code } of all) {
    if (["ts", "sh", "json", "html", "text"].includes(info)) continue;
    assert.equal(info, "ts ignore", `${page}:${line} is ${info || "of no language"}`);
    const entry = ELSEWHERE.find(([part]) => code.includes(part));
    assert(entry, `${page}:${line} runs nowhere: test it, and name the test in ELSEWHERE`);
    await Deno.stat(new URL(entry[1], root));
  }
  const named = [...ELSEWHERE.map(([part]) => part), ...IN_WORDS.map(([part]) => part)];
  const lost = named.filter((part) => !all.some(({ code }) => code.includes(part)));
  assert.deepEqual(lost, [], "what stands in ELSEWHERE and IN_WORDS is in a block");
});

Deno.test("recipes have at most 25 lines, and a sentence before them, and are listed", async () => {
  const text = await textOf("docs/recipes.md");
  const [list, ...recipes] = text.split(/^## /m);
  assert(recipes.length >= 14);
  const listed = list.match(/\]\(#[^)]+\)/g);
  assert.equal(new Set(listed).size, recipes.length, "each recipe is in the list");
  for (const recipe of recipes) {
    const [title, ...rest] = recipe.split("\n");
    const [block, ...others] = blocksIn(title, recipe);
    assert(block?.info === "ts" && others.length === 0, `${title} is one program`);
    assert(
      block.code.trimEnd().split("\n").length <= 25 + 1,
      `${title} is ${block.code.split("\n").length - 1} lines`,
    );
    assert.match(rest.slice(0, block.line - 2).join(" "), /[a-z].*\.\)? *$/);
  }
});

Deno.test("links between the pages lead somewhere", async () => {
  const anchors = new Map<string, Set<string>>();
  const anchorsOf = async (page: string) => {
    const known = anchors.get(page);
    if (known) return known;
    const text = (await textOf(page)).replace(/^```.*?^```$/gms, "");
    const made = new Set(
      [...text.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
        title.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-")
      ),
    );
    anchors.set(page, made);
    return made;
  };
  for (const page of await pages()) {
    const text = (await textOf(page)).replace(/^```.*?^```$/gms, "");
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path, anchor] = target.split("#");
      const file = path === "" ? new URL(page, root) : new URL(path, new URL(page, root));
      await Deno.stat(file).catch(() =>
        assert.fail(`${page} links to ${target}, which is not there`)
      );
      if (anchor === undefined || !file.pathname.endsWith(".md")) continue;
      const there = await anchorsOf(file.href.slice(root.href.length));
      assert(there.has(anchor), `${page} links to ${target}, which has no such heading`);
    }
  }
});

Deno.test("blocksIn() and said() see every block and every comment", () => {
  const page = [
    "text",
    "```ts",
    "const f = (x: string) => x;",
    "console.log(f(",
    "  '1',",
    ")); // 1",
    "```",
    "```",
    "a",
    "```",
  ];
  const found = blocksIn("page", page.join("\n"));
  assert.deepEqual(found.map(({ line, info }) => [line, info]), [[2, "ts"], [8, ""]]);
  assert.deepEqual(said(found[0].code), [{ call: "console.log(f(\n  '1',\n))", comment: "1" }]);
  assert.deepEqual(said("console.log(1);\n// 1\n"), [{ call: "console.log(1)", comment: null }]);
  for (const wrong of ["- item\n  ```ts\n  ```", "~~~\n~~~", "````ts\n````", "```ts\nopen"]) {
    assert.throws(() => blocksIn("page", wrong), /^Error: page:\d/);
  }
  assert(isSaid("1, with words", "1") && isSaid("[ 1 ]", "[ 1 ]"));
  assert(!isSaid("10", "1") && !isSaid(null, "1") && !isSaid("", "1"));
});

Deno.test("run() tells what blocks print, throw and assert, and gives no permission that they do not ask for", async () => {
  const made = (code: string, line: number): Block => ({
    page: "docs/x.md",
    line,
    info: "ts",
    code,
  });
  const ran = await run(
    [
      made(`console.log([1], "a");\n`, 1),
      made(`console.assert(1 + 1 === 3);\n`, 2),
      made(
        `import { sum } from "@syncbn/syncbn";\nconsole.log(sum.name, await Deno.readTextFile("/"));\n`,
        3,
      ),
      made(`// deno run --allow-read\nconsole.log((await Deno.stat("/")).isDirectory);\n`, 4),
    ].values().toArray(),
  );
  const [first, second, third, fourth] = ran.values();
  assert.deepEqual(first, { printed: ["[ 1 ] a"], error: null });
  assert.match(second.error ?? "", /Assertion failed/);
  assert.match(third.error ?? "", /NotCapable/);
  assert.deepEqual(fourth, { printed: ["true"], error: null });
  const [broken] = (await run([made("const x: number;;=\n", 5)])).values();
  assert.match(broken.error ?? "", /SyntaxError.*docs_x_md_5/s);
});
