import assert from "node:assert/strict";
import { referenceDevice } from "../mod.ts";
import { share } from "../examples/batches.ts";
import { digestOf } from "../examples/compare.ts";
import { openPlace, type Place } from "../examples/devices.ts";
import { DEMO } from "../examples/flags.ts";
import { hostLayers } from "../examples/host_layers.ts";
import { LARGEST_DIFFERENCE } from "../examples/report.ts";
import { inProcessRunner } from "../examples/runners.ts";
import { demo, digits, NARROW, NO_ADAPTER, planWith } from "./demo_kit.ts";
import { assertRefused } from "./refused_flags.ts";

const run = inProcessRunner(hostLayers(referenceDevice()), digits);

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

Deno.test("the demo answers a wrong flag with one line and exit code 2", async () => {
  const calls: [string[], RegExp][] = [
    [["--replicas", "0"], /--replicas must be an integer from 1 to 64: current value is "0"/],
    [["--batch", "two"], /--batch must be an integer/],
    [["--epochs"], /--epochs must be an integer.*it has none/],
    [["--device", "tpu"], /--device must be auto, webgpu, wasm or reference: .*"tpu"/],
    [["--seed", "-1"], /--seed/],
    [["--steps", "0"], /--steps must be an integer from 1 to 1000000: current value is "0"/],
    [["--replica", "4"], /--replica is none of --replicas/],
    [["train"], /takes flags only: current argument is "train"/],
  ];
  await assertRefused(DEMO, calls);
  // The program does the same.
  const { code, stdout, stderr } = await demo(["--replicas", "0"]);
  assert.deepEqual([code, stdout, stderr.length], [2, "", 1]);
});

Deno.test("the demo says in one line which permission it lacks", async () => {
  const [read] = NARROW;
  const calls: [string[], RegExp][] = [
    [[], /^Cannot start the demo as Deno must allow read access to .*deno task demo does/],
    [["--allow-read"], /^Cannot start the demo as out\/demo\.svg must be writable: .*write access/],
    [[read, "--allow-write=elsewhere"], /out\/demo\.svg must be writable: .*--allow-write/],
  ];
  for (const [permissions, text] of calls) {
    const { code, stdout, stderr } = await demo(["--device", "reference"], { permissions });
    assert.deepEqual([code, stdout, stderr.length], [2, "", 1], stderr.join("\n"));
    assert.match(stderr[0], text);
  }
  const help = await demo(["--help"], { permissions: [] });
  assert.equal(help.code, 0);
  assert.match(help.stdout, /^ {2}--replicas N +number of replicas, 1 to 64 \(4\)$/m);
});

Deno.test("the demo says in one line that there is no adapter for --device webgpu", async () => {
  const { code, stdout, stderr } = await demo(["--device", "webgpu"], { env: NO_ADAPTER });
  assert.equal(code, 2);
  assert.match(
    stderr.join("\n"),
    /^Cannot start the demo as --device webgpu must find an adapter.*$/m,
  );
  assert.equal(stdout, "");
});

Deno.test("the demo takes Wasm by itself where there is no hardware GPU, and says so", async () => {
  const { code, stdout } = await demo(["--steps", "1"], { env: NO_ADAPTER });
  assert.equal(code, 0);
  assert.match(stdout, /^Device: Wasm SIMD \(.*\), as there is no adapter$/m);
  assert.match(stdout, /equal one process\.\n.*within the first 1 step: /);
});

Deno.test("the demo computes where it is told to, with the same numbers to rounding", async () => {
  const options = { replicas: 2, batch: 4, epochs: 1, stopAfter: 5, seed: 3 };
  const { runs } = planWith([], options);
  assert(runs.sync.task);
  const { task } = runs.sync;
  const expected = await run(task);
  const [wasm, reference] = [await openPlace("wasm"), await openPlace("reference")];
  assert(wasm && reference);
  await using _places = { [Symbol.asyncDispose]: wasm[Symbol.asyncDispose] };
  assert.match(wasm.title, /^Wasm SIMD [^,]*, 1 thread\)$/);
  assert.match(reference.title, /^reference/);
  const learn = ({ onLayers }: Place) =>
    onLayers((layers) => inProcessRunner(layers, digits)(task));
  assert.deepEqual((await learn(reference)).snapshots, expected.snapshots);
  const { snapshots } = await learn(wasm);
  assert.equal(snapshots.size, 5);
  for (const [step, parameters] of snapshots) {
    const other = expected.snapshots.get(step);
    // What the demo allows replicas: the arithmetic differs by rounding alone.
    assert(
      other && parameters.every((value, i) => Math.abs(value - other[i]) <= LARGEST_DIFFERENCE),
      `step ${step}`,
    );
  }
});

Deno.test("the demo with --exact has one digest on 1, 2, 4 and 8 replicas, and on either device", async () => {
  const digests = new Set<string>();
  for (const [replicas, batch] of [[1, 8], [2, 4], [4, 2], [8, 1]]) {
    for (const name of replicas === 4 ? ["wasm", "reference"] as const : ["wasm"] as const) {
      await using place = await openPlace(name, true);
      const plan = planWith([], { replicas, batch, epochs: 1, stopAfter: 3, seed: 5 });
      await place!.onLayers(async (layers) => {
        const exact = inProcessRunner(layers, digits);
        for (const run of [plan.runs.sync, replicas === 2 ? plan.runs.control : null]) {
          if (run?.task) {
            digests.add(await digestOf([...(await exact(run.task)).snapshots.values()]));
          }
        }
      });
    }
  }
  assert.equal(digests.size, 1);
});

Deno.test("the demo refuses --exact on a GPU, and shows the digests elsewhere", async () => {
  const refused = await demo(["--exact", "--device", "webgpu"]);
  assert.equal(refused.code, 2);
  assert.match(refused.stderr[0], /--exact must come with --device wasm or reference: the device/);
  const shown = await demo(["--exact", "--steps", "2", "--replicas", "2"]);
  assert.equal(shown.code, 0);
  assert.match(shown.stdout, /^2 replicas with syncbn have the bits of one process\./m);
  const found = [...shown.stdout.matchAll(/^([0-9a-f]{16}) {2}/gm)].map(([, digest]) => digest);
  assert.equal(found.length, 3);
  assert.equal(new Set(found).size, 1);
});
