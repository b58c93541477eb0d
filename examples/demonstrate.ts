/**
 * The demonstration as it is seen: what it says before, while and after it trains, and its chart.
 *
 * @module
 */

import { chart } from "./chart.ts";
import { compare, type Plan, type Runners } from "./compare.ts";
import type { Digits } from "./digits.ts";
import type { GroupName } from "./flags.ts";
import { progressBar, progressLines } from "./progress.ts";
import { judge, judgeExactly, table, tableNotes } from "./report.ts";
import { startError } from "./start_error.ts";

/** What is shown, and how. */
export interface Scene {
  readonly digits: Digits;
  readonly plan: Plan;
  /** What computes, for people. */
  readonly device: string;
  readonly group: GroupName;
  /** What the replicas are, for people; nothing where they are but replicas. */
  readonly replicas?: string;
  /** Whether the device is exact, so that bits are compared. */
  readonly exact: boolean;
  /** Whether progress is a bar. */
  readonly bar: boolean;
}

const CHART = "out/demo.svg";

/**
 * Performs the plan before the user's eyes.
 *
 * @param runners how to train
 * @param scene what is shown
 * @returns the exit code
 * @throws (rejects with) a start error where the chart cannot be written
 */
export async function demonstrate(runners: Runners, scene: Scene): Promise<number> {
  const { digits, plan, device, group, replicas } = scene;
  try {
    // Before the training, so that nobody waits for a chart that cannot be written.
    await Deno.mkdir("out", { recursive: true });
    await Deno.writeTextFile(CHART, "");
  } catch (cause) {
    const { message } = cause as Error;
    throw startError(`${CHART} must be writable: ${message.split("\n")[0]}`, { cause });
  }
  const { batch, epochs, seed } = plan;
  console.log(
    `${digits.training.count} handwritten digits to learn from, ${digits.test.count} to be judged by; ` +
      `${epochs} ${epochs === 1 ? "epoch" : "epochs"}, seed ${seed}`,
  );
  const what = replicas ? `${plan.replicas} ${replicas}` : `${plan.replicas}`;
  console.log(`Replicas: ${what}, with ${batch} ${batch === 1 ? "image" : "images"} each`);
  console.log(`Device: ${device}\n`);

  const encoder = new TextEncoder();
  const write = (text: string): void => {
    Deno.stdout.writeSync(encoder.encode(text));
  };
  const onProgress = scene.bar ? progressBar(write, () => performance.now()) : progressLines(write);
  const comparison = await compare(runners, plan, onProgress);

  const verdict = scene.exact ? judgeExactly(comparison) : judge(comparison);
  console.log(`\n${table(comparison)}\n\n${tableNotes(group)}\n\n${verdict.text}`);
  await Deno.writeTextFile(CHART, chart(comparison));
  console.log(`Chart: ${CHART}`);
  return verdict.kept ? 0 : 1;
}
