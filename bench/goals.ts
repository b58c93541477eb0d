/** Goals, and whether a run reached them: computed from its figures alone. */

import { list, table } from "./report.ts";

export interface Verdict {
  readonly goal: string;
  /** Whether it was reached; null where it was not measured, or where there is nothing to reach. */
  readonly met: boolean | null;
  readonly figure: string;
  /** Every figure that misses the goal, the worst first. */
  readonly misses: readonly string[];
}

export interface Seen {
  readonly value: number;
  readonly where: string;
}

export function undecided(goal: string, figure = "not measured"): Verdict {
  return { goal, met: null, figure, misses: [] };
}

export function atLeast(goal: string, seen: readonly Seen[], bound: number): Verdict {
  const ordered = seen.toSorted((a, b) => a.value - b.value);
  return judged(goal, ordered, (value) => value >= bound, (value) => value.toFixed(2));
}

export function atMost(goal: string, seen: readonly Seen[], bound: number, unit = ""): Verdict {
  const ordered = seen.toSorted((a, b) => b.value - a.value);
  const shown = (value: number) =>
    `${bound < 1e-3 ? value.toExponential(1) : value.toFixed(2)}${unit}`;
  return judged(goal, ordered, (value) => value <= bound, shown);
}

function judged(
  goal: string,
  ordered: readonly Seen[],
  reaches: (value: number) => boolean,
  shown: (value: number) => string,
): Verdict {
  if (ordered.length === 0) return undecided(goal);
  const missed = ordered.filter(({ value }) => !reaches(value));
  const reached = `reached in ${ordered.length - missed.length} of ${ordered.length}`;
  return {
    goal,
    met: missed.length === 0,
    figure: `${shown(ordered[0].value)} at worst, ${reached}`,
    misses: missed.map(({ value, where }) => `${shown(value)} (${where})`),
  };
}

export function goalSection(verdicts: readonly Verdict[]): string[] {
  const words = new Map([[true, "met"], [false, "missed"], [null, "none"]]);
  const missed = verdicts.filter(({ misses }) => misses.length > 0);
  return [
    table([
      ["goal", "measured", "verdict"],
      ...verdicts.map(({ goal, met, figure }) => [goal, figure, words.get(met) ?? "none"]),
    ]),
    ...(missed.length === 0 ? [] : ["What misses a goal:"]),
    ...list(missed.map(({ goal, misses }) => `${goal}: ${misses.join("; ")}`)),
  ];
}
