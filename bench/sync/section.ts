/**
 * What was measured, as Markdown.
 *
 * @module
 */

import { figure, paragraph, table } from "../groups/markdown.ts";
import type { SyncCosts } from "./measure.ts";
import { normsOf, type StepOptions } from "./step.ts";

/** Where the section stands in bench/README.md. */
export const MARKERS = ["<!-- sync:begin -->", "<!-- sync:end -->"] as const;

/** A run. */
export interface SyncRun extends SyncCosts {
  readonly options: StepOptions;
  /** The machine and what ran on it, in words. */
  readonly machine: string;
  readonly date: string;
}

/**
 * Writes the section.
 *
 * @param run what was measured
 * @returns Markdown as `deno fmt` leaves it
 */
export function section({ options, machine, date, rows, missing }: SyncRun): string {
  const { batch, rounds, image } = options;
  const collectives = 2 * normsOf(image).length;
  return [
    paragraph(
      // The command comes first, where no line ends within it, whatever the machine is called.
      `By \`deno task bench:sync\`, on ${machine}; ${date}. Forward and backward of ` +
        `${
          collectives / 2
        } layers, ${batch} images of ${image}x${image} per rank, one thread per rank; median of ` +
        `${rounds} steps of each kind in turns, in ms, which both ranks begin together.`,
    ),
    table([
      ["group", "ranks", "local", "synchronised", "sync adds", "per collective"],
      ...rows.map(({ group, ranks, local, sync }) => [
        group,
        String(ranks),
        figure(local),
        figure(sync),
        ranks === 1 ? "" : `${figure(sync - local)} (${(100 * (sync / local - 1)).toFixed(0)} %)`,
        ranks === 1 ? "" : `${(1000 * (sync - local) / collectives).toFixed(0)} us`,
      ]),
    ]),
    ...missing.map(({ subject, missing }) => paragraph(`${subject}: not measured, ${missing}.`)),
  ].join("\n\n");
}
