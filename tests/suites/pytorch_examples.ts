/** The examples of PyTorch's page of SyncBatchNorm over any kind of group: the functions that the README prints. */

import assert from "node:assert/strict";
import type { ProcessGroup } from "../../mod.ts";
import { train } from "../../examples/pytorch/convert.ts";
import { randn } from "../../examples/pytorch/data.ts";
import { layers, type SeenLayers } from "../../examples/pytorch/layers.ts";
import type { Seen } from "../../examples/pytorch/look.ts";
import { STEPS } from "../../examples/pytorch/both.ts";
import { LARGEST_DIFFERENCE, learnt } from "../../examples/pytorch/report.ts";
import { same } from "../data_parallel.ts";
import { assertClose, EPSILON, type GroupKit, register } from "../kit.ts";
import * as oracle from "../oracle.ts";

const SHAPE = [4, 100, 3, 2, 2];
/** Linear weight and bias, the norm's weight and bias; after them come the running statistics. */
const LEARNT = 20 * 100 + 100 + 100 + 100;

/** What a rank's model is after training over all ranks, and after training with the statistics of halves. */
export async function trainBoth(
  world: ProcessGroup,
  counts: readonly number[],
): Promise<{ readonly all: readonly number[]; readonly half: readonly number[] }> {
  return {
    all: await train(world, { counts, steps: STEPS, processGroup: "world" }),
    half: await train(world, { counts, steps: STEPS, processGroup: "half" }),
  };
}

/** Checks what a new layer has seen of the inputs of some ranks. */
function checkSeen({ shape, mean, variance, runningMean, runningVar }: Seen, ranks: number[]) {
  const values = ranks.flatMap((rank) => [...randn(SHAPE, rank)]);
  const batch = oracle.statistics({ values, channels: 100, inner: 12 });
  const unbiased = batch.variance.map((value) => value * batch.count / (batch.count - 1));
  const relative = EPSILON.float32;
  assert.deepEqual(shape, SHAPE);
  // Half a unit in the last place of outputs, all of which are below 8.
  assertClose(mean, new Array(100).fill(0), { absolute: 2 ** -22, relative: 0 }, "mean");
  // eps takes its part of 1; a square is off by twice what its output is.
  const left = batch.variance.map((value) => value / (value + 1e-5));
  assertClose(variance, left, { absolute: 0, relative }, "variance");
  const toward = (from: number, to: readonly number[]) => to.map((v) => 0.9 * from + 0.1 * v);
  assertClose(runningMean, toward(0, batch.mean), { absolute: 0, relative }, "running mean");
  assertClose(runningVar, toward(1, unbiased), { absolute: 0, relative }, "running variance");
}

/**
 * Registers the tests of PyTorch's examples for a kind of group, 4 ranks in halves.
 *
 * @param kit how to run a task on ranks of this kind
 */
export function pytorchExamplesOverGroup(kit: GroupKit): void {
  const file = (name: string) => new URL(`../../examples/pytorch/${name}`, import.meta.url).href;

  register(kit, "PyTorch's page: layers normalize over all ranks and over halves", async () => {
    const task = { module: file("layers.ts"), name: layers.name, body: layers };
    const ranks: SeenLayers[] = await kit.run(4, task, SHAPE);
    checkSeen(same(ranks.map(({ all }) => all)), [0, 1, 2, 3]);
    const halves = ranks.map(({ half }) => half);
    checkSeen(same(halves.slice(0, 2)), [0, 1]);
    checkSeen(same(halves.slice(2)), [2, 3]);
    assert.notDeepEqual(halves[0].runningMean, halves[2].runningMean);
  });

  register(kit, "PyTorch's page: a converted model learns what fewer processes learn", async () => {
    const task = { module: import.meta.url, name: trainBoth.name, body: trainBoth };
    const ranks = await kit.run(4, task, [9, 14, 8, 17]);
    const close = (is: readonly number[], wanted: readonly number[]) =>
      assertClose(is, wanted, { absolute: LARGEST_DIFFERENCE, relative: 0 }, "numbers");

    const [one] = await learnt([48]);
    close(same(ranks.map(({ all }) => all)), one);

    const halves = ranks.map(({ half }) => half);
    const two = await learnt([23, 25]);
    close(same(halves.slice(0, 2)), two[0]);
    close(same(halves.slice(2)), two[1]);
    // Gradients are averaged over all ranks, statistics are a half's own.
    same(halves.map((numbers) => numbers.slice(0, LEARNT)));
    assert.notDeepEqual(halves[0].slice(LEARNT), halves[2].slice(LEARNT));
    assert(halves[0].some((value, i) => Math.abs(value - one[i]) > 1e-2), "groups matter");
  });
}
