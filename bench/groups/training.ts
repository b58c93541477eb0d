/**
 * What synchronising adds to a training step of the demo's network: the same replicas with batch norm over each one's own
 * images, and over those of all.
 */

import { planRuns } from "../../examples/compare.ts";
import { readDigits } from "../../examples/digits.ts";
import { hostLayers } from "../../examples/host_layers.ts";
import { rankRunner } from "../../examples/runners.ts";
import { type ProcessGroup, referenceDevice } from "../../mod.ts";
import { GROUPS, inThread } from "../ranks.ts";
import { median } from "../measure.ts";
import type { MissingPeer, StepRow, StepTimes } from "./measured.ts";

export interface TrainingOptions {
  readonly batch: number;
  readonly steps: number;
  readonly rounds: number;
}

export async function train(
  group: ProcessGroup,
  { batch, steps, rounds }: TrainingOptions,
): Promise<StepTimes> {
  const file = new URL("../../examples/digits.bin.gz", import.meta.url);
  const digits = await readDigits(await Deno.readFile(file));
  const runner = rankRunner(hostLayers(referenceDevice()), digits, group);
  const { runs } = planRuns(digits.training.count, {
    ...{ replicas: group.worldSize, batch, epochs: 1000, stopAfter: steps, seed: 1 },
  });
  const none = { exams: new Set<number>([steps]), snapshots: new Set<number>() };
  const times = { local: [] as number[], sync: [] as number[] };
  for (let round = 0; round < rounds; round++) {
    for (const norm of ["local", "sync"] as const) {
      const { task } = runs[norm];
      if (task === null) throw new RangeError("Cannot time local batch norm of one image");
      const { msPerStep } = await runner({ ...task, ...none });
      times[norm].push(msPerStep);
    }
  }
  return { local: median(times.local), sync: median(times.sync) };
}

export async function measureSteps(
  ranks: number,
  options: TrainingOptions,
): Promise<{ readonly steps: readonly StepRow[]; readonly missing: readonly MissingPeer[] }> {
  const steps: StepRow[] = [];
  const missing: MissingPeer[] = [];
  const task = { module: import.meta.url, name: "train" };
  for (const [group, run] of Object.entries({ "one thread": inThread, ...GROUPS })) {
    try {
      steps.push({ group, ranks, ...await run<TrainingOptions, StepTimes>(ranks, task, options) });
    } catch (error) {
      missing.push({ subject: `demo, ${group}`, ranks, missing: (error as Error).message });
    }
  }
  return { steps, missing };
}
