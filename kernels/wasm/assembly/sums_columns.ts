// sum dy and sum dy * (x - mean) per channel where the channels lie side by side: memory is a matrix whose rows hold `period`
// lanes, each of which always belongs to the same channel.
//
// Memory is walked once, in ascending order, a few rows at a time; sums stand in float32 for a tile of rows, then in float64.

import { RECORD } from "./moments";
import { MOST, readable, valueAt } from "./storage";
import { ChannelSums } from "./sums";
import { bytes, gated, madd } from "./vectors";

/** Rows that are summed at once. */
const ROWS: u32 = 2;
/** Lanes of ROWS rows that are widened at once. */
const WIDENED: u32 = MOST / ROWS;
/** Rows of a tile. */
const TILE: u32 = 256;

/**
 * Gradient sums of elements [from, to) of matrices of rows of `period` lanes, per channel.
 *
 * @param x first byte of forward's input
 * @param dy first byte of the gradient of its output
 * @param output first byte of its output, where dy counts only if that is positive; 0 where dy always counts
 * @param half 1 for float16, 0 for float32
 * @param period lanes of a row, a multiple of 4; lane j belongs to channel (j / inner) % channels; `from` is a multiple of it
 * @param his means as float32, per lane
 * @param records the result: a record per channel
 * @param scratch room for period x 24 bytes, and 3 x MOST float32
 */
export function sumsOfColumns(
  x: usize,
  dy: usize,
  output: usize,
  half: bool,
  channels: u32,
  inner: u32,
  period: u32,
  from: u32,
  to: u32,
  his: usize,
  records: usize,
  scratch: usize,
): void {
  memory.fill(records, 0, <usize> channels * RECORD);
  const plane = bytes(period);
  const dys = scratch;
  const products = dys + 2 * plane;
  const dyLanes = products + 2 * plane;
  const productLanes = dyLanes + plane;
  const widened = productLanes + plane;
  memory.fill(dys, 0, 6 * plane);
  const rows = (to - from) / period;
  for (let settled: u32 = 0; settled < rows; settled += TILE) {
    const tile = min(rows - settled, TILE);
    for (let done: u32 = 0; done < tile; done += ROWS) {
      const group = min(ROWS, tile - done);
      if (!half) {
        const gates = output ? output + bytes(from) : 0;
        addGroup(x + bytes(from), dy + bytes(from), gates, plane, group, his, dyLanes, productLanes, period);
      } else {
        for (let lane: u32 = 0; lane < period; lane += WIDENED) {
          const lanes = min(WIDENED, period - lane);
          const at = bytes(lane);
          const stride = bytes(WIDENED);
          const gradients = widened + bytes(MOST);
          const gates = output ? gradients + bytes(MOST) : 0;
          for (let r: u32 = 0; r < group; r++) {
            const first = from + r * period + lane;
            readable(x, first, lanes, true, widened + <usize> r * stride);
            readable(dy, first, lanes, true, gradients + <usize> r * stride);
            if (output) readable(output, first, lanes, true, gates + <usize> r * stride);
          }
          addGroup(widened, gradients, gates, stride, group, his + at, dyLanes + at, productLanes + at, lanes);
        }
      }
      from += group * period;
    }
    settle(period, dyLanes, productLanes, dys, products);
  }
  addPartialRow(x, dy, output, half, from, to - from, his, dys, products);
  collect(period, dys, products, channels, inner, records);
}

/** Adds a group of rows to the sums of their lanes. */
// @ts-ignore: decorator
@inline
function addGroup(
  x: usize,
  g: usize,
  gate: usize,
  stride: usize,
  rows: u32,
  his: usize,
  dys: usize,
  products: usize,
  lanes: u32,
): void {
  if (gate) add(x, g, gate, stride, rows, his, dys, products, lanes, true);
  else add(x, g, 0, stride, rows, his, dys, products, lanes, false);
}

// @ts-ignore: decorator
@inline
function add(
  x: usize,
  g: usize,
  gate: usize,
  stride: usize,
  rows: u32,
  his: usize,
  dys: usize,
  products: usize,
  lanes: u32,
  hasGate: bool,
): void {
  const end = bytes(lanes);
  if (rows == ROWS) {
    const x1 = x + stride, y1 = g + stride, z1 = gate + stride;
    for (let j: usize = 0; j < end; j += 16) {
      const hi = v128.load(his + j);
      const g0 = hasGate ? gated(v128.load(g + j), v128.load(gate + j)) : v128.load(g + j);
      const g1 = hasGate ? gated(v128.load(y1 + j), v128.load(z1 + j)) : v128.load(y1 + j);
      const d0 = f32x4.sub(v128.load(x + j), hi);
      const d1 = f32x4.sub(v128.load(x1 + j), hi);
      v128.store(dys + j, f32x4.add(v128.load(dys + j), f32x4.add(g0, g1)));
      v128.store(products + j, madd(g1, d1, madd(g0, d0, v128.load(products + j))));
    }
    return;
  }
  for (let r: u32 = 0; r < rows; r++, x += stride, g += stride, gate += stride) {
    for (let j: usize = 0; j < end; j += 16) {
      const gradient = hasGate ? gated(v128.load(g + j), v128.load(gate + j)) : v128.load(g + j);
      const deviation = f32x4.sub(v128.load(x + j), v128.load(his + j));
      v128.store(dys + j, f32x4.add(v128.load(dys + j), gradient));
      v128.store(products + j, madd(gradient, deviation, v128.load(products + j)));
    }
  }
}

/** Adds the float32 sums of a tile to the float64 ones, lane by lane. */
function settle(period: u32, dyLanes: usize, productLanes: usize, dys: usize, products: usize): void {
  for (let j: usize = 0; j < bytes(period); j += 8) {
    const dy = f64x2.promote_low_f32x4(v128.load64_zero(dyLanes + j));
    const product = f64x2.promote_low_f32x4(v128.load64_zero(productLanes + j));
    v128.store(dys + 2 * j, f64x2.add(v128.load(dys + 2 * j), dy));
    v128.store(products + 2 * j, f64x2.add(v128.load(products + 2 * j), product));
  }
  memory.fill(dyLanes, 0, 2 * bytes(period)); // The products lie behind the gradients.
}

/** Adds the elements of a last row that is not whole. */
function addPartialRow(
  x: usize,
  dy: usize,
  output: usize,
  half: bool,
  from: u32,
  lanes: u32,
  his: usize,
  dys: usize,
  products: usize,
): void {
  for (let j: u32 = 0; j < lanes; j++) {
    if (output && !(valueAt(output, from + j, half) > 0)) continue;
    const gradient = valueAt(dy, from + j, half);
    const lane = <usize> j << 3;
    const deviation = valueAt(x, from + j, half) - <f64> load<f32>(his + bytes(j));
    store<f64>(dys + lane, load<f64>(dys + lane) + gradient);
    store<f64>(products + lane, load<f64>(products + lane) + gradient * deviation);
  }
}

/** Adds the lanes of every channel into its record. */
function collect(
  period: u32,
  dys: usize,
  products: usize,
  channels: u32,
  inner: u32,
  records: usize,
): void {
  let lane: usize = 0;
  const end = <usize> period << 3;
  while (lane < end) {
    for (let c: u32 = 0; c < channels; c++) {
      const channel = changetype<ChannelSums>(records + <usize> c * RECORD);
      for (let i: u32 = 0; i < inner; i++, lane += 8) {
        channel.dy += load<f64>(dys + lane);
        channel.products += load<f64>(products + lane);
      }
    }
  }
}
