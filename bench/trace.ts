/** Where the time of a synchronised step goes: each rank computes, waits for the last to come, and is held up after that. */

import * as Plot from "@observablehq/plot";
import type { ProcessGroup, ReduceGroup } from "../mod.ts";
import { chart } from "./chart.ts";
import { median } from "./measure.ts";

/** One rank's step, by its own clock, in ms. */
export interface Step {
  readonly began: number;
  readonly ended: number;
  /** Its collectives: when its values were there, and when it had the total. */
  readonly meetings: readonly (readonly [came: number, left: number])[];
}

/** Where a rank's step went, in ms. */
export interface Shares {
  /** Outside collectives. */
  readonly computing: number;
  /** Between a rank's coming and that of the last: skew, whatever the transport. */
  readonly waiting: number;
  /** Between the coming of the last and having the total: folding, copying, waking up. */
  readonly after: number;
}

/** A group that notes when its rank comes to collectives and when it goes. */
export function noting(group: ProcessGroup, meetings: [number, number][]): ReduceGroup {
  return {
    worldSize: group.worldSize,
    allReduce: async (local, combine, options) => {
      let came = performance.now();
      if (local instanceof Promise) local.then(() => came = performance.now(), () => {});
      const total = await group.allReduce(local, combine, options);
      meetings.push([came, performance.now()]);
      return total;
    },
  };
}

/** A step from numbers: began, ended, and of each meeting came and left. */
export function stepOf([began, ended, ...times]: Iterable<number>): Step {
  const meetings = Array.from(
    { length: times.length / 2 },
    (_, i) => [times[2 * i], times[2 * i + 1]] as const,
  );
  return { began, ended, meetings };
}

/** Gives every rank the steps of all, by the clock of rank 0. */
export async function gatherSteps(
  group: ProcessGroup,
  { began, ended, meetings }: Step,
): Promise<readonly Step[]> {
  const all = await group.allGather(Float64Array.of(began, ended, ...meetings.flat()));
  return aligned(all.map(stepOf));
}

/**
 * Sets all clocks by that of rank 0: nobody leaves before the other has come, so the least of left - came in both
 * directions brackets the difference, as a pair of messages does in the network time protocol (Mills 1991).
 */
export function aligned([first, ...others]: readonly Step[]): readonly Step[] {
  const least = (from: Step, to: Step) =>
    Math.min(...from.meetings.map(([came], i) => to.meetings[i][1] - came));
  return [
    first,
    ...others.map((step): Step => {
      const ahead = (least(first, step) - least(step, first)) / 2;
      return {
        began: step.began - ahead,
        ended: step.ended - ahead,
        meetings: step.meetings.map(([came, left]) => [came - ahead, left - ahead]),
      };
    }),
  ];
}

/** When the last rank came to each meeting. */
function lastOf(steps: readonly Step[]): readonly number[] {
  return steps[0].meetings.map((_, i) => Math.max(...steps.map(({ meetings }) => meetings[i][0])));
}

/** Shares out every rank's time. */
export function sharesOf(steps: readonly Step[]): readonly Shares[] {
  const last = lastOf(steps);
  const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);
  return steps.map(({ began, ended, meetings }) => {
    const waiting = sum(meetings.map(([came], i) => last[i] - came));
    const after = sum(meetings.map(([, left], i) => left - last[i]));
    return { computing: ended - began - waiting - after, waiting, after };
  });
}

/** The medians over all steps and ranks, each of its own. */
export function typical(all: readonly (readonly Step[])[]): Shares {
  const shares = all.flatMap(sharesOf);
  const of = (name: keyof Shares) => median(shares.map((one) => one[name]));
  return { computing: of("computing"), waiting: of("waiting"), after: of("after") };
}

const COLOURS = { computing: "#9db4c8", waiting: "#d1495b", after: "#222222" } as const;
const LANE = 46;
/** What is no wider than a tenth of a dot is not drawn, in ms. */
const UNSEEN = 0.02;

/** Draws one step of each group: a lane per rank. */
export function drawSteps(groups: Readonly<Record<string, readonly Step[]>>): string {
  const lanes = Object.entries(groups).flatMap(([name, steps]) => {
    const start = Math.min(...steps.map(({ began }) => began));
    const last = lastOf(steps);
    return steps.map(({ began, ended, meetings }, rank) => ({
      lane: `${name}, rank ${rank}`,
      spans: [
        { from: began, to: ended, kind: "computing" as const },
        ...meetings.flatMap(([came, left], i) => [
          { from: came, to: last[i], kind: "waiting" as const },
          { from: last[i], to: left, kind: "after" as const },
        ]).filter(({ from, to }) => to - from > UNSEEN),
      ].map(({ from, to, kind }) => ({ from: from - start, to: to - start, kind })),
    }));
  });
  const rects = lanes.flatMap(({ lane, spans }) => spans.map((span) => ({ lane, ...span })));
  const height = 70 + LANE * lanes.length;
  return chart({
    title: "A synchronised step of a ResNet-50's batch norms, rank by rank",
    subtitle: "53 layers forward, then backward: 106 collectives, at each of which all ranks meet.",
    legend: [
      { label: "computing", colour: COLOURS.computing },
      { label: "waiting for the last to come", colour: COLOURS.waiting },
      { label: "after it has come", colour: COLOURS.after },
    ],
    height,
    panels: [{
      title: "",
      options: {
        ...{ marginLeft: 150, marginRight: 24, marginTop: 20, marginBottom: 44 },
        x: { label: "ms", labelArrow: "none", labelAnchor: "center", grid: true },
        y: { type: "band", domain: lanes.map(({ lane }) => lane), label: null, tickSize: 0 },
        marks: [
          Plot.rect(rects, {
            ...{
              x1: "from",
              x2: "to",
              y: "lane",
              fill: ({ kind }) => COLOURS[kind as keyof Shares],
            },
          }),
        ],
      },
    }],
  });
}
