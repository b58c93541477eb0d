/** The demo at length: what its table and its chart say. */

import assert from "node:assert/strict";
import { referenceDevice } from "../../mod.ts";
import { chart } from "../../examples/chart.ts";
import { compare, type CompareOptions, planRuns } from "../../examples/compare.ts";
import { hostLayers } from "../../examples/host_layers.ts";
import { judge, LARGEST_DIFFERENCE, table } from "../../examples/report.ts";
import { inProcessRunner } from "../../examples/runners.ts";
import { digits, planWith } from "../demo_kit.ts";
import { fullTests } from "../tier.ts";

const test = fullTests("demo");
const run = inProcessRunner(hostLayers(referenceDevice()), digits);
const compareHere = (options: CompareOptions) =>
  compare({ one: run, replicas: run }, planRuns(digits.training.count, options));

test("the demo's replicas with syncbn equal one process, those with local batch norm do not", async () => {
  const options = { replicas: 4, batch: 30, epochs: 1, stopAfter: Infinity, seed: 3 };
  const comparison = await compare({ one: run, replicas: run }, planWith([4, 8, 12], options));
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

test("a demo that is stopped takes the whole one's first steps, and is not judged by accuracy", async () => {
  const stopAt = (stopAfter: number) =>
    compareHere({ replicas: 2, batch: 15, epochs: 1, stopAfter, seed: 3 });
  const [sooner, later] = [await stopAt(2), await stopAt(4)];
  assert.deepEqual([sooner.steps, sooner.planned, later.steps, later.planned], [2, 48, 4, 48]);
  const first = later.results.local.distances.slice(0, 2);
  assert.deepEqual(sooner.results.local.distances, first);
  assert.match(chart(sooner), /^<svg.*<\/svg>\s*$/s);

  const exams = sooner.results.sync.exams.map((exam) => ({ ...exam, accuracy: 0 }));
  const sync = { ...sooner.results.sync, exams };
  const spoilt = { ...sooner, results: { ...sooner.results, sync } };
  const [stopped, whole] = [judge(spoilt), judge({ ...spoilt, planned: spoilt.steps })];
  assert(stopped.kept);
  assert.match(stopped.text, /after 2 steps: .*not judged/);
  assert(!whole.kept);
  assert.match(whole.text, /at the end: .*TOO FAR APART/);
});
