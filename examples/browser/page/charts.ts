/// <reference lib="dom" />
/**
 * The two charts on the page: made anew where their size, their colours or the number of steps are others.
 *
 * @module
 */

import { type Colours, columnsOf, type CurvesName, optionsOf, wordsOf } from "./curves.ts";
import { element } from "./dom.ts";
import type { State } from "./state.ts";
import type { Chart, MakeChart } from "./uplot.ts";

const NAMES: readonly CurvesName[] = ["accuracy", "distance"];
const HEIGHT = 250;

/** Prepares both charts. */
export function drawCharts(uPlot: MakeChart): { readonly draw: (state: State) => void } {
  const charts = new Map<CurvesName, { readonly chart: Chart; readonly made: string }>();
  let last: State | null = null;
  const draw = (state: State): void => {
    last = state;
    const colours = coloursOf();
    const steps = state.plan?.steps ?? 1;
    for (const name of NAMES) {
      const place = element(name);
      const columns = columnsOf(name, state);
      place.setAttribute("aria-label", wordsOf(name, columns));
      const width = Math.max(place.clientWidth, 200);
      const made = JSON.stringify([colours, steps, width]);
      const old = charts.get(name);
      if (old?.made === made) {
        old.chart.setData(columns);
        continue;
      }
      old?.chart.destroy();
      const options = optionsOf(name, { colours, steps, width, height: HEIGHT });
      charts.set(name, { made, chart: new uPlot(options, columns, place) });
    }
  };
  const again = (): void => {
    if (last !== null) draw(last);
  };
  new ResizeObserver(again).observe(element("accuracy"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  return { draw };
}

/** The colours that the style sheet has now, as the canvas wants them. */
function coloursOf(): Colours {
  const probe = document.createElement("span");
  document.body.append(probe);
  const colour = (name: string): string => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const colours: Colours = {
    ...{ one: colour("one"), sync: colour("sync"), local: colour("local"), none: colour("none") },
    ...{ ink: colour("soft"), grid: colour("grid") },
  };
  probe.remove();
  return colours;
}
