// The reduction without rounding: the walks of reduce_rows.ts and reduce_columns.ts, whose strips leave their sums in records of
// digits (digits.ts).

import { HIS, MOST_SUMMED, STRIP_ROOM, TAIL } from "./exact_plan";
import { addElement, addStrip, recordOf } from "./exact_sums";
import { RECORD } from "./digits";
import { further, MOST, readable, valueAt } from "./storage";
import { bytes, loadRest, zeros } from "./vectors";

/** Rows of a tile, and of one whose elements are halves: lanes of 64 are widened at once. */
const TILE: u32 = 256;
const HALF_LANES: u32 = 64;
const HALF_TILE: u32 = MOST / HALF_LANES;
/** Elements of a vector, and of a run that is not the last of its row. */
const GRAIN: u32 = 16;

/**
 * Reduces elements [from, to) to records: of x and x^2 where `dy` is 0, else of dy and dy * (x - hi), in which dy counts only where
 * `output` is positive, if that is not 0. Memory is walked as rows of a channel where `period` is 0, or as rows of lanes, as reduce
 * says; `his` are means as float32 per channel, or per lane. `scratch` has room for STRIP_ROOM bytes and 3 x MOST float32.
 */
export function reduceExactly(
  x: usize, dy: usize, output: usize, half: bool, channels: u32, inner: u32, period: u32, from: u32, to: u32,
  his: usize, records: usize, scratch: usize,
): void {
  memory.fill(records, 0, <usize> channels * RECORD);
  if (from == to) return;
  const room = scratch + STRIP_ROOM;
  if (period == 0) return rows(x, dy, output, half, channels, inner, from, to, his, records, scratch, room);
  const whole = (to - from) / period;
  const tile = half ? HALF_TILE : TILE;
  for (let row: u32 = 0; row < whole; row += tile) {
    const height = min(tile, whole - row);
    const first = from + row * period;
    if (half) halves(x, dy, output, first, period, height, channels, inner, his, records, scratch, room);
    else {
      const at = bytes(first);
      lanes(x + at, further(dy, at), further(output, at), period, bytes(period), height, 0, channels, inner, his, records, scratch);
    }
  }
  // Elements of a last row that is not whole.
  for (let i = from + whole * period, lane: u32 = 0; i < to; i++, lane++) {
    const open = !output || valueAt(output, i, half) > 0;
    const gradient = dy && open ? <f32> valueAt(dy, i, half) : 0;
    const hi = dy ? load<f32>(his + bytes(lane)) : 0;
    addElement(<f32> valueAt(x, i, half), gradient, hi, !dy, recordOf(records, lane, channels, inner));
  }
}

/** Rows of one channel each, in runs. */
function rows(
  x: usize, dy: usize, output: usize, half: bool, channels: u32, inner: u32, from: u32, to: u32, his: usize,
  records: usize, work: usize, room: usize,
): void {
  let c = (from / inner) % channels;
  for (let end = (from / inner + 1) * inner; from < to; end += inner) {
    const last = min(end, to);
    const hi = dy ? v128.load32_splat(his + bytes(c)) : zeros();
    v128.store(work, hi, HIS);
    while (from < last) {
      const left = last - from, runs = (left + MOST_SUMMED - 1) / MOST_SUMMED;
      const length = min(left, ((left + runs - 1) / runs + GRAIN - 1) & ~(GRAIN - 1));
      const run = readable(x, from, length, half, room);
      const gradients = dy ? readable(dy, from, length, half, room + bytes(MOST)) : 0;
      const gates = output ? readable(output, from, length, half, room + 2 * bytes(MOST)) : 0;
      const rest = length & 3, whole = bytes(length - rest);
      if (rest) {
        // Lanes beyond the run count nothing: their x is hi, and their dy 0.
        v128.store(work, v128.bitselect(loadRest(run + whole, rest), hi, i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(rest))), TAIL);
        if (dy) v128.store(work, loadRest(gradients + whole, rest), TAIL + 16);
        if (output) v128.store(work, loadRest(gates + whole, rest), TAIL + 32);
      }
      addStrip(run, gradients, gates, whole, 16, work + HIS, rest != 0, work, records + <usize> c * RECORD, 0, 0, 0);
      from += length;
    }
    if (++c == channels) c = 0;
  }
}

/** Some lanes of some rows, four lanes at a time; the first of them is lane `lane` of the matrix. */
function lanes(
  x: usize, g: usize, gate: usize, count: u32, stride: usize, height: u32, lane: u32, channels: u32, inner: u32,
  his: usize, records: usize, work: usize,
): void {
  for (let j: u32 = 0; j < count; j += 4) {
    const at = bytes(j);
    const size = <usize> height * stride;
    addStrip(x + at, further(g, at), further(gate, at), size, stride, his + bytes(lane + j), false, work, records, lane + j, channels, inner);
  }
}

/** The same of halves, which are widened. */
function halves(
  x: usize, dy: usize, output: usize, first: u32, period: u32, height: u32, channels: u32, inner: u32, his: usize,
  records: usize, work: usize, room: usize,
): void {
  const stride = bytes(HALF_LANES);
  const gradients = dy ? room + bytes(MOST) : 0, gates = output ? room + 2 * bytes(MOST) : 0;
  for (let lane: u32 = 0; lane < period; lane += HALF_LANES) {
    const count = min(HALF_LANES, period - lane);
    for (let r: u32 = 0; r < height; r++) {
      const element = first + r * period + lane, at = <usize> r * stride;
      readable(x, element, count, true, room + at);
      if (dy) readable(dy, element, count, true, gradients + at);
      if (output) readable(output, element, count, true, gates + at);
    }
    lanes(room, gradients, gates, count, stride, height, lane, channels, inner, his, records, work);
  }
}
