/**
 * What the page uses of uPlot. It comes as an argument, so that the project's own lock need not name it.
 *
 * @module
 */

/** Shared values on the x axis, then each curve's values, with null where it has none. */
export type Columns = readonly (readonly (number | null)[])[];

/** A chart on the page. */
export interface Chart {
  readonly setData: (columns: Columns) => void;
  readonly destroy: () => void;
}

/** Its options, as far as they are used. */
export interface ChartOptions {
  readonly width: number;
  readonly height: number;
  readonly padding: readonly [top: number, right: number, bottom: number, left: number];
  readonly scales: Readonly<Record<"x" | "y", ScaleOptions>>;
  readonly axes: readonly AxisOptions[];
  readonly series: readonly SeriesOptions[];
  readonly legend: { readonly show: boolean };
  readonly cursor: { readonly show: boolean };
}

/** A scale; `distr: 3` is logarithmic. */
export interface ScaleOptions {
  readonly time?: false;
  readonly distr?: 3;
  readonly range: readonly [number, number];
}

/** An axis. */
export interface AxisOptions {
  readonly stroke: string;
  readonly font: string;
  readonly size?: number;
  readonly grid: { readonly stroke: string; readonly width: number };
  readonly ticks: { readonly show: boolean };
  readonly values?: (chart: unknown, splits: readonly (number | null)[]) => readonly string[];
  readonly splits?: () => readonly number[];
  /** Which of the splits have a label; of a logarithmic axis uPlot leaves some out. */
  readonly filter?: (chart: unknown, splits: readonly number[]) => readonly (number | null)[];
}

/** A curve. */
export interface SeriesOptions {
  readonly label: string;
  readonly stroke?: string;
  readonly width?: number;
  readonly dash?: readonly number[];
  readonly cap?: "round";
  readonly spanGaps?: boolean;
  readonly points?: { readonly show: boolean };
}

/** The class itself. */
export type MakeChart = new (options: ChartOptions, columns: Columns, parent: unknown) => Chart;
