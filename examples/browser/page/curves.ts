/**
 * The two charts as data: what uPlot draws, made of what the page knows and of the style sheet's colours.
 *
 * @module
 */

import { type RunName, RUNS } from "./messages.ts";
import type { State } from "./state.ts";
import type { AxisOptions, ChartOptions, Columns, SeriesOptions } from "./uplot.ts";
import { powerOfTen } from "./view.ts";

/** Colours by what they are for. */
export type Colours = Readonly<Record<RunName | "ink" | "grid", string>>;

/** A chart's name. */
export type CurvesName = "accuracy" | "distance";

/** Runs whose curves a chart has. */
const SHOWN: Readonly<Record<CurvesName, readonly RunName[]>> = {
  accuracy: RUNS,
  distance: ["sync", "local"],
};
/** Distances below this, and none at all, are drawn here. */
const FLOOR = 1e-9;
const POWERS = [-9, -7, -5, -3, -1, 1].map((power) => 10 ** power);

/** As in the demo's chart: syncbn is dashed, on one process's broad line. */
const LINES: Readonly<Record<RunName, Omit<SeriesOptions, "label" | "stroke">>> = {
  one: { width: 8, cap: "round" },
  sync: { width: 2.5, dash: [7, 4] },
  local: { width: 2.5 },
  none: { width: 2 },
};
const LABELS: Readonly<Record<RunName, string>> = {
  one: "one process",
  sync: "syncbn",
  local: "local batch norm",
  none: "no norm",
};

/** Makes a chart's options. */
export function optionsOf(
  name: CurvesName,
  { colours, width, height, steps }: {
    readonly colours: Colours;
    readonly width: number;
    readonly height: number;
    readonly steps: number;
  },
): ChartOptions {
  const axis: AxisOptions = {
    stroke: colours.ink,
    font: "13px system-ui, sans-serif",
    grid: { stroke: colours.grid, width: 1 },
    ticks: { show: false },
  };
  const scale = name === "accuracy"
    ? { range: [0, 100] as const }
    : { distr: 3 as const, range: [FLOOR, 10] as const };
  const percents = (_: unknown, splits: readonly (number | null)[]) =>
    splits.map((value) => value === null ? "" : `${value} %`);
  const powers = (_: unknown, splits: readonly (number | null)[]) =>
    splits.map((value) => value === null ? "" : powerOfTen(Math.round(Math.log10(value))));
  return {
    ...{ width, height, padding: [8, 12, 0, 0] },
    scales: { x: { time: false, range: [0, Math.max(steps, 1)] }, y: scale },
    axes: [
      { ...axis, size: 26 },
      name === "accuracy"
        ? { ...axis, size: 56, values: percents, splits: () => [0, 25, 50, 75, 100] }
        : {
          ...axis,
          size: 56,
          values: powers,
          splits: () => POWERS,
          filter: (_, splits) => splits,
        },
    ],
    series: [
      { label: "step" },
      ...SHOWN[name].map((run): SeriesOptions => ({
        ...{ ...LINES[run], label: LABELS[run], stroke: colours[run] },
        ...{ spanGaps: true, points: { show: false } },
      })),
    ],
    legend: { show: false },
    cursor: { show: false },
  };
}

/** Lays out what the runs have come to as columns. */
export function columnsOf(name: CurvesName, { runs }: Pick<State, "runs">): Columns {
  const curves = SHOWN[name].map((run) =>
    new Map(
      name === "accuracy"
        ? runs[run].exams.map(({ step, accuracy }) => [step, 100 * accuracy])
        : runs[run].distances.map(({ step, largest }) => [step, Math.max(largest, FLOOR)]),
    )
  );
  const steps = [...new Set(curves.flatMap((curve) => [...curve.keys()]))].sort((a, b) => a - b);
  return [steps, ...curves.map((curve) => steps.map((step) => curve.get(step) ?? null))];
}

/** Says in words what a chart shows. */
export function wordsOf(name: CurvesName, columns: Columns): string {
  const what = name === "accuracy"
    ? "Accuracy on 360 images that no run has seen, in percent"
    : "Largest difference of a parameter from one process, on a logarithmic scale";
  const ends = SHOWN[name].flatMap((run, i) => {
    const last = columns[i + 1].findLast((value) => value !== null);
    if (typeof last !== "number") return [];
    return [`${LABELS[run]} ${name === "accuracy" ? last.toFixed(1) : last.toExponential(1)}`];
  });
  return `${what}. ${ends.length ? `So far: ${ends.join(", ")}.` : "There are no curves yet."}`;
}
