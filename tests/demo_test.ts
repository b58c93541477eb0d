import assert from "node:assert/strict";
import { referenceDevice } from "../mod.ts";
import { chart } from "../examples/chart.ts";
import { compare } from "../examples/compare.ts";
import { readDigits } from "../examples/digits.ts";
import { judge, LARGEST_DIFFERENCE, table } from "../examples/report.ts";
import { share } from "../examples/batches.ts";

const root = new URL("../", import.meta.url);
const digits = await readDigits(await Deno.readFile(new URL("examples/digits.bin.gz", root)));

Deno.test("the demo's data are the 1,797 digits, every one an image of 0 to 16", () => {
  const { training, test } = digits;
  assert.equal(training.count + test.count, 1797);
  const seen = new Set([...training.labels, ...test.labels]);
  assert.deepEqual([...seen].sort((a, b) => a - b), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.equal(training.pixels.length, 64 * training.count);
  assert(training.pixels.every((value) => Number.isFinite(value)));
});

Deno.test("the demo cuts every batch over its replicas without loss", () => {
  const batch = Array.from({ length: 13 }, (_, i) => i);
  for (const perReplica of [1, 2, 3, 4]) {
    const parts = Array.from({ length: 13 }, (_, rank) => share(batch, rank, perReplica));
    assert.deepEqual(parts.flat(), batch, `${perReplica} per replica`);
  }
});

Deno.test("the demo's replicas with syncbn equal one process, those with local batch norm do not", async () => {
  const options = { replicas: 4, batch: 30, epochs: 1, seed: 3 };
  const comparison = await compare(referenceDevice(), digits, options);
  const largest = (name: "sync" | "local") =>
    Math.max(...comparison.results[name].distances.map((distance) => distance.largest));
  assert(comparison.steps === 12 && largest("sync") <= LARGEST_DIFFERENCE);
  assert(largest("sync") > 0, "float32 gradients of four parts are rounded four times");
  assert(largest("local") > 0.01);
  assert(judge(comparison).kept);
  const early = comparison.results.sync.distances.map((distance) => ({
    ...distance,
    largest: 2e-5,
  }));
  const broken = { ...comparison.results.sync, distances: early };
  assert(!judge({ ...comparison, results: { ...comparison.results, sync: broken } }).kept);
  assert.match(table(comparison), /^one process.*\n.*reversed.*\nsyncbn.*\nlocal.*\nno norm/m);
  assert.match(chart(comparison), /^<svg.*<\/svg>\s*$/s);
});

Deno.test("the demo answers a wrong flag with one line and exit code 2", async () => {
  const calls: [string[], RegExp][] = [
    [["--replicas", "0"], /--replicas must be an integer from 1 to 64: current value is "0"/],
    [["--batch", "two"], /--batch must be an integer/],
    [["--epochs"], /--epochs must be an integer.*it has none/],
    [["--device", "tpu"], /--device must be auto or cpu: current value is "tpu"/],
    [["--seed", "-1"], /--seed/],
    [["--replica", "4"], /--replica is none of --replicas/],
    [["train"], /takes flags only: current argument is "train"/],
  ];
  for (const [flags, text] of calls) {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-read=examples", "examples/demo.ts", ...flags],
      cwd: root,
      env: { NO_COLOR: "1" },
    }).output();
    const lines = new TextDecoder().decode(stderr).trim().split("\n");
    assert.equal(code, 2);
    assert.equal(lines.length, 1);
    assert.match(lines[0], text);
    assert.equal(stdout.length, 0);
  }
});
