/** What an exact device does otherwise: its statistics are records of digits, and behind those of moments lies what they come to. */

import type { Device, MomentsPass, SumsPass } from "../../lib/device.ts";
import { isFiniteRecord, RECORD, wholeSum } from "../../lib/exact/record.ts";
import { advanceExactly } from "../../lib/exact/running.ts";
import { carryWire, EXACT_WIRES, exactMomentsWire, exactSumsWire } from "../../lib/exact/wires.ts";
import type { WireFormat } from "../../lib/wire.ts";
import { momentsWire, sumsWire, weightedMomentsWire } from "../../lib/wire.ts";
import type { Statistic, WasmArray } from "./arrays.ts";
import { type Context, elements, type Exact, type Operate } from "./context.ts";
import { type Layout, layoutOf, type Part } from "./layout.ts";
import { addressesOf, laneBytes, planes, spread } from "./walks.ts";
import { weightsIn } from "./weights.ts";

/** Operations of statistics without rounding. */
export type ExactOperations = Pick<
  Device<WasmArray>,
  | "moments"
  | "gradientSums"
  | "updateRunningStats"
  | "toWire"
  | "toWireNow"
  | "fromWire"
  | "merge"
>;

/** Bytes of scratch memory that a thread's part of a reduction takes: FACTORS + 4 * TERMS of `assembly/exact_plan.ts`. */
const WORK = 448 + 4 * 4096;
/** Bytes of what limbs are in: of `assembly/exact_results.ts`. */
const LIMBS = 832;

/** What kernels of the other operations read instead of records. */
export const EXACT: Exact = Object.freeze<Exact>({
  momentsAt: (context, moments, channels) => {
    const { kind } = context.arrays.contents(moments);
    const isWeighted = kind === weightedMomentsWire.name;
    const format = isWeighted ? EXACT_WIRES[kind] : exactMomentsWire;
    // Weighted ones have a number before the count.
    const at = context.statistic(moments, format, channels) + (isWeighted ? 8 : 0);
    context.kernels.resolveMoments(at, channels, context.areas(LIMBS)[0]);
    return at + 8 * exactMomentsWire.length(channels);
  },
  sumsAt: (context, sums, channels, moments) => {
    const at = context.statistic(sums, exactSumsWire, channels);
    if (at === 0) return 0;
    const result = context.borrow(planes(2, channels, 8));
    context.kernels.resolveSums(at, channels, moments, result, context.areas(LIMBS)[0]);
    return result;
  },
});

/** Makes the operations of statistics without rounding. */
export function exactOperations(operate: Operate): ExactOperations {
  const read = ({ areas, arrays, kernels, memory }: Context, array: WasmArray) => {
    const format = EXACT_WIRES[arrays.contents(array).kind] ?? exactMomentsWire;
    const { address, contents: { length } } = arrays.slot(array, format.name);
    const [to] = areas(8 * length);
    const header = format.length(0);
    kernels.recordsToWire(address + 8 * header, (length - header) / RECORD, to + 8 * header);
    const values = new Float64Array(memory.buffer(), to, length).slice();
    values.set(new Float64Array(memory.buffer(), address, header));
    return { format, values };
  };
  const write = (context: Context, format: WireFormat, wire: Float64Array) => {
    const { areas, kernels, memory } = context;
    const header = format.length(0);
    const channels = (wire.length - header) / RECORD;
    const { array, slot } = header
      ? makeMoments(context, format, channels)
      : makeSums(context, channels);
    const [from] = areas(8 * wire.length);
    new Float64Array(memory.buffer(), from, wire.length).set(wire);
    new Float64Array(memory.buffer(), slot.address, header).set(wire.subarray(0, header));
    kernels.recordsFromWire(from + 8 * header, channels, slot.address + 8 * header);
    return array;
  };
  const toWireNow = (array: WasmArray) => operate((context) => read(context, array).values);
  return {
    moments: (pass) => operate((context) => moments(context, pass)),
    gradientSums: (pass) => operate((context) => gradientSums(context, pass)),
    updateRunningStats: ({ running: { runningMean, runningVar }, moments, factor }) =>
      operate((context) => {
        const { arrays, make, memory, vector } = context;
        const { contents: { length: channels } } = arrays.slot(runningMean, "elements");
        const [resolved] = addressesOf(context, { source: "batch", moments }, channels);
        const old = [vector(runningMean, channels), vector(runningVar, channels)];
        const [mean, variance] = [0, 1].map(() => make(elements(channels, "float32")));
        const floats = (at: number) => new Float32Array(memory.buffer(), at, channels);
        const rounded = new Float64Array(memory.buffer(), resolved, momentsWire.length(channels));
        let wire: ReturnType<typeof read> | undefined;
        const sumOf = (c: number) => {
          const { format, values } = wire ??= read(context, moments);
          const at = format.length(c);
          return isFiniteRecord(values, at) ? wholeSum(values, at) : null;
        };
        advanceExactly(
          { rounded, sumOf },
          factor,
          { mean: floats(old[0]), variance: floats(old[1]) },
          { mean: floats(mean.slot.address), variance: floats(variance.slot.address) },
        );
        return { runningMean: mean.array, runningVar: variance.array };
      }),
    toWire: (array) => new Promise((resolve) => resolve(toWireNow(array))),
    toWireNow,
    fromWire: ({ name }, wire) => operate((context) => write(context, EXACT_WIRES[name], wire)),
    merge: (a, b) =>
      operate((context) => {
        const { format, values } = read(context, a);
        const merged = format.combine(values, read(context, b).values);
        carryWire(format, merged);
        return write(context, format, merged);
      }),
  };
}

/** Makes an array of exact moments, without a count yet; behind them is room for what they come to, which is not there either. */
function makeMoments({ kernels, make }: Context, format: WireFormat, channels: number) {
  const { name: kind } = format;
  const room = momentsWire.length(channels);
  const made = make<Statistic>({ kind, length: format.length(channels), room });
  kernels.beginMoments(made.slot.address + 8 * (format.length(0) - 1), channels);
  return made;
}

function makeSums({ make }: Context, channels: number) {
  return make<Statistic>({ kind: sumsWire.name, length: exactSumsWire.length(channels) });
}

function moments(context: Context, { input, weights }: MomentsPass<WasmArray>): WasmArray {
  const { kernels, memory } = context;
  const layout = layoutOf(input);
  const x = context.tensor(input, { elements: layout.elements, dtype: input.dtype });
  const at = weightsIn(context, input, weights);
  const format = EXACT_WIRES[weights ? weightedMomentsWire.name : momentsWire.name];
  const parts = context.parts(layout.elements, layout.period || undefined);
  const { array, slot: { address } } = makeMoments(context, format, layout.channels);
  if (weights) kernels.weighExactly(at, layout.count, address);
  else new Float64Array(memory.buffer(), address, 1)[0] = layout.count;
  reduce(context, layout, parts, [x, 0, 0], at, () => 0, address + 8 * format.length(0));
  return array;
}

function gradientSums(context: Context, pass: SumsPass<WasmArray>): WasmArray {
  const { input, gradOutput, statistics, output } = pass;
  const { dtype, format } = input;
  const layout = layoutOf(input);
  const { channels } = layout;
  const like = { elements: layout.elements, dtype };
  const x = context.tensor(input, like);
  const dy = context.ordered(gradOutput, like, format);
  const gates = context.ordered(output, like, format);
  const parts = context.parts(layout.elements, layout.period || undefined);
  const [moments, means] = addressesOf(context, statistics, channels);
  const { array, slot } = makeSums(context, channels);
  const write = (perChannel: number, perLane: number) => {
    context.kernels.means(moments, means, channels, perChannel);
    return spread(context.kernels, 1, layout, perChannel, perLane);
  };
  const weights = weightsIn(context, input, pass.weights);
  reduce(context, layout, parts, [x, dy, gates], weights, write, slot.address);
  return array;
}

/** Reduces on all threads; the first leaves its records where the result is to be. */
function reduce(
  context: Context,
  layout: Layout,
  parts: readonly Part[],
  [x, dy, output]: readonly [number, number, number],
  weights: number,
  hisOf: (perChannel: number, perLane: number) => number,
  records: number,
): void {
  const { channels, half, laneInner, period } = layout;
  const bytes = planes(RECORD, channels, 8);
  const [perChannel, perLane, others, work] = context.areas(
    // Whole vectors are read of them.
    planes(1, channels, 4) + 16,
    laneBytes(1, layout),
    bytes * (parts.length - 1),
    WORK * parts.length,
  );
  const his = hisOf(perChannel, perLane);
  context.run("reduceExactly", parts, ({ from, to }, thread) => {
    const result = thread === 0 ? records : others + bytes * (thread - 1);
    const room = work + WORK * thread;
    return [
      x,
      dy,
      output,
      half,
      channels,
      laneInner,
      period,
      from,
      to,
      weights,
      his,
      result,
      room,
    ];
  });
  if (parts.length > 1) {
    context.kernels.addRecords(others, parts.length - 1, channels, records);
  }
}
