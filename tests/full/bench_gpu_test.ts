/** What bench:gpu says of its figures, and one small batch all the way. */

import assert from "node:assert/strict";
import { requestWebGpuDevice } from "../../kernels/webgpu_device.ts";
import { testsWebgpu } from "../webgpu_kit.ts";
import { bytesOf, type Case, casesFor, passesOf, speedOf, WORKS } from "../../bench/gpu/cases.ts";
import { numbersOf } from "../../bench/batches.ts";
import { errorsOf } from "../../bench/errors.ts";
import type { MeasuredCase, MeasuredGpu } from "../../bench/gpu/measured.ts";
import { measureOurs } from "../../bench/gpu/ours.ts";
import { gpuChart, gpuSection } from "../../bench/gpu/section.ts";
import { verdicts } from "../../bench/gpu/verdict.ts";
import { fullTests } from "../tier.ts";

const test = fullTests("bench");

const CASE: Case = {
  batch: { shape: [4, 64, 3, 5], format: "channelsFirst" },
  dtype: "float32",
  fused: false,
};

/** A run in which a copy moves 100 GB/s, and everything else some share of that. */
function runOf(share: number, pytorch: number, error: number, software = false): MeasuredGpu {
  const cases = [false, true].map((fused): MeasuredCase => {
    const one = { ...CASE, fused };
    const at = (passes: number, speed: number) => passes * bytesOf(one) / speed / 1e6;
    const works = Object.fromEntries(
      WORKS.map((work) => [work, at(passesOf(work, fused), 100 * share)]),
    ) as Record<(typeof WORKS)[number], number>;
    const gpu = { ...works, copy: at(2, 100), "copy kernel": at(2, 90) };
    const theirs = { forward: works.forward * pytorch, backward: works.backward * pytorch };
    return {
      ours: { case: one, errors: { y: error, dx: error / 2, sums: 0 }, wall: gpu, gpu },
      peers: fused
        ? {}
        : { "a peer": { forward: 4, both: 8, errors: { y: 1e-4, dx: 1e-3, sums: 0 } } },
      torch: fused ? null : { "SyncBatchNorm's kernels": theirs, "F.batch_norm": theirs },
    };
  });
  return {
    ...{ date: "2026-11-24", adapter: "a GPU", software, versions: ["v"], command: "c", rounds: 3 },
    ...{
      cases,
      ranks: [{ shape: [4, 64], thread: 1, workers: 2, torch: null }],
      absent: ["nobody"],
    },
  };
}

test("bench:gpu: effective bandwidth counts what a work reads and writes", () => {
  assert.equal(bytesOf(CASE), 4 * 64 * 15 * 4);
  assert.deepEqual(WORKS.map((work) => passesOf(work, false)), [2, 3, 5]);
  assert.deepEqual(WORKS.map((work) => passesOf(work, true)), [3, 4, 6]);
  assert.equal(speedOf(CASE, "forward", 1e-3), 3 * bytesOf(CASE) / 1e-3 / 1e6);
  const hardware = casesFor(false, ["float32", "float16"]);
  assert.equal(hardware.length, (1 + 2 * 8) * 4);
});

test("bench:gpu: goals are met and missed by figures, and no speed by software", () => {
  const metBy = (run: MeasuredGpu) => verdicts(run).map(({ met }) => met);
  assert.deepEqual(metBy(runOf(0.9, 1.6, 1e-6)), [true, true, null, true, true]);
  assert.deepEqual(metBy(runOf(0.8, 1.4, 1e-6)), [false, false, null, true, true]);
  assert.deepEqual(metBy(runOf(0.9, 0.9, 3e-6)), [true, false, null, false, false]);
  assert.deepEqual(metBy(runOf(0.9, 1.6, 1e-6, true)), [null, null, null, null, true]);
});

test("bench:gpu: section and chart say what was measured, and what was not", async () => {
  const text = gpuSection(runOf(0.9, 1.6, 1e-6));
  assert.match(text, /\| \[4,64,3,5\] +\| 100 +\| [\d.]+ \(90\.0, 90 %\)/);
  assert.match(text, /\| \[4,64,3,5\] +\| F\.batch_norm +\| +\| [\d.]+ \(1\.60\)/);
  assert.doesNotMatch(text, /NaN|undefined|Infinity|software/);
  assert.match(text, /a peer \| 4\.00 \(7812\.5\) \| 8\.00 .* 1\.0e-4 .* 1\.0e-3/);
  assert.match(text, /\[4,64\] \| 1\.00 +\| 2\.00/);
  assert.match(gpuSection(runOf(0.9, 1.6, 1e-6, true)), /Not measured on a GPU yet/);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--quiet", "--ext=md", "-"],
    cwd: new URL("..", import.meta.url),
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  assert.equal(new TextDecoder().decode((await child.output()).stdout).trimEnd(), text);
  assert.match(gpuChart(runOf(0.9, 1.6, 1e-6)), /^<svg [^]*<\/svg>\n$/);
});

test("bench:gpu: a wrong result is far from float64, whatever is fused", () => {
  for (const fused of [false, true]) {
    const one = CASE;
    const numbers = numbersOf(one.batch);
    const zeros = new Float32Array(numbers.x.length);
    const { y, dx } = errorsOf(one.batch, numbers, { y: zeros, dx: numbers.dy }, fused);
    assert(y > 1 && dx > 1e-2, `${y}, ${dx}`);
    assert.equal(
      errorsOf(one.batch, numbers, { y: zeros.map(() => NaN), dx: zeros }, fused).y,
      Infinity,
    );
  }
});

test("bench:gpu: a small batch is checked and timed, in every variant", async () => {
  await using device = await requestWebGpuDevice();
  const dtypes = device.info.float16 ? ["float32", "float16"] as const : ["float32"] as const;
  for (const dtype of dtypes) {
    for (const fused of [false, true]) {
      const one = { ...CASE, dtype, fused };
      const { wall, errors } = await measureOurs(device, one, 1);
      assert(Object.values(wall).every((time) => time > 0), JSON.stringify(wall));
      assert(Math.max(errors.y, errors.dx) < (dtype === "float32" ? 2e-5 : 2e-2));
    }
  }
}, { ignore: !await testsWebgpu() });
