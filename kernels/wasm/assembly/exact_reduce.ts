// The reduction without rounding: memory as rows of a channel, or as rows of lanes, in strips that leave their sums in records of
// digits (digits.ts).

import { RECORD } from "./digits";
import { addByGuess } from "./exact_guess";
import { forget, HIS } from "./exact_plan";
import { addElement, addStrip, recordOf } from "./exact_sums";
import { gather } from "./exact_strips";
import { addWeighted, placeOf, readLanes, readWeights, weightAt } from "./exact_weights";
import { address, valueAt } from "./storage";
import { bytes, zeros } from "./vectors";

/** Most elements of a strip, how many rows of four lanes that is, and what a run that is not the last of its row is a multiple of. */
const MOST_SUMMED: u32 = 1024;
const TILE: u32 = 256;
const GRAIN: u32 = 16;

/**
 * Reduces elements [from, to) to records: of x and x^2 where `dy` is 0, else of dy and dy * (x - hi), in which dy counts only where
 * `output` is positive, if that is not 0. Memory is walked as rows of a channel where `period` is 0, or as rows of lanes, as reduce
 * says; `his` are means as float32 per channel, or per lane. With `weights`, one for each place, an element counts that often.
 * `scratch` has room for FACTORS + 4 * TERMS bytes.
 */
export function reduceExactly(
  x: usize, dy: usize, output: usize, half: bool, channels: u32, inner: u32, period: u32, from: u32, to: u32, weights: usize,
  his: usize, records: usize, scratch: usize,
): void {
  memory.fill(records, 0, <usize> channels * RECORD);
  if (from == to) return;
  forget(scratch);
  if (period == 0) return rows(x, dy, output, half, channels, inner, from, to, weights, his, records, scratch);
  const whole = (to - from) / period;
  for (let row: u32 = 0; row < whole; row += TILE) {
    const height = min(TILE, whole - row);
    lanes(x, dy, output, half, channels, inner, period, from + row * period, height, weights, his, records, scratch);
  }
  // Elements of a last row that is not whole.
  for (let i = from + whole * period, lane: u32 = 0; i < to; i++, lane++) {
    const d = <f32> valueAt(x, i, half) - (dy ? load<f32>(his + bytes(lane)) : 0);
    const open = !output || valueAt(output, i, half) > 0;
    const t = dy && open ? <f32> valueAt(dy, i, half) : 0;
    let bits = weights ? weightAt(weights, i, channels, inner) : 1;
    for (; bits; bits &= bits - 1) {
      addElement(d, t, !dy, recordOf(records, lane, channels, inner), <f64> (bits & -bits));
    }
  }
}

/** Rows of one channel each, in runs. */
function rows(
  x: usize, dy: usize, output: usize, half: bool, channels: u32, inner: u32, from: u32, to: u32, weights: usize, his: usize,
  records: usize, work: usize,
): void {
  let c = (from / inner) % channels;
  for (let end = (from / inner + 1) * inner; from < to; end += inner) {
    const last = min(end, to);
    v128.store(work, dy ? v128.load32_splat(his + bytes(c)) : zeros(), HIS);
    const record = records + <usize> c * RECORD;
    while (from < last) {
      const left = last - from, runs = (left + MOST_SUMMED - 1) / MOST_SUMMED;
      const length = min(left, ((left + runs - 1) / runs + GRAIN - 1) & ~(GRAIN - 1));
      const rest = length & 3, size = bytes(length - rest), all = size + (rest ? 16 : 0);
      const run = address(x, from, half), g = dy ? address(dy, from, half) : 0, gate = output ? address(output, from, half) : 0;
      from += length;
      if (!half && !weights && !rest && addByGuess(run, g, gate, size, 16, work + HIS, work, record, 0, 0, 0)) continue;
      gather(run, g, gate, size, half ? 8 : 16, rest, work + HIS, work, half);
      if (weights) {
        const bits = readWeights(weights + bytes(placeOf(from - length, channels, inner)), length, work);
        addWeighted(bits, work, all, !dy, record, 0, 0, 0);
      } else addStrip(work, all, !dy, record, 0, 0, 0, 1);
    }
    if (++c == channels) c = 0;
  }
}

/** Rows of lanes, four lanes at a time. */
function lanes(
  x: usize, dy: usize, output: usize, half: bool, channels: u32, inner: u32, period: u32, from: u32, height: u32,
  weights: usize, his: usize, records: usize, work: usize,
): void {
  const stride = bytes(period) >> <usize> half, size = <usize> height << 4;
  for (let lane: u32 = 0; lane < period; lane += 4) {
    const first = from + lane;
    const run = address(x, first, half), g = dy ? address(dy, first, half) : 0, gate = output ? address(output, first, half) : 0;
    const ofLanes = his + bytes(lane);
    if (!half && !weights && addByGuess(run, g, gate, size, stride, ofLanes, work, records, lane, channels, inner)) continue;
    gather(run, g, gate, size, stride, 0, ofLanes, work, half);
    if (weights) {
      const bits = readLanes(weights, first, period / channels, size, channels, inner, work);
      addWeighted(bits, work, size, !dy, records, lane, channels, inner);
    } else addStrip(work, size, !dy, records, lane, channels, inner, 1);
  }
}
