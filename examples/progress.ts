/**
 * Progress as text: a bar that is drawn again and again on a terminal, one line per run elsewhere.
 *
 * @module
 */

import type { Progress } from "./compare.ts";
import { IMPOSSIBLE, percent, stepsOf } from "./report.ts";

const CELLS = 24;
const REDRAW_MS = 100;
/** Back to the first column, clear the line. */
const CLEAR = "\r\x1b[K";

/**
 * Makes a bar for a terminal.
 *
 * @param write where the bar goes
 * @param now a clock in ms
 * @returns takes progress; redraws about ten times a second, and leaves a line behind for each run that is done
 */
export function progressBar(
  write: (text: string) => void,
  now: () => number,
): (progress: Progress) => void {
  let drawn = -Infinity;
  return (progress) => {
    const done = progress.step === progress.steps;
    if (!done && now() - drawn < REDRAW_MS) return;
    drawn = now();
    write(CLEAR + (done ? `${summary(progress)}\n` : bar(progress)));
  };
}

/**
 * Makes plain lines for a file or a pipe.
 *
 * @param write where the lines go
 * @returns takes progress; writes a line for each run that is done
 */
export function progressLines(write: (text: string) => void): (progress: Progress) => void {
  return (progress) => {
    if (progress.step === progress.steps) write(`${summary(progress)}\n`);
  };
}

function bar({ title, run, runs, step, steps, exam }: Progress): string {
  const full = Math.round(CELLS * step / steps);
  const cells = "█".repeat(full) + "░".repeat(CELLS - full);
  const learnt = exam ? `, ${percent(exam.accuracy)} % right` : "";
  return `${run}/${runs} ${cells} ${title}: step ${step} of ${steps}${learnt}`;
}

function summary({ title, run, runs, steps, exam }: Progress): string {
  const outcome = exam ? `${stepsOf(steps)}, ${percent(exam.accuracy)} % right` : IMPOSSIBLE;
  return `${run}/${runs} ${title}: ${outcome}`;
}
