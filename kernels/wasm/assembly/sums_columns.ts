// sum dy and sum dy * (x - mean) per channel where the channels lie side by side: memory is a matrix whose rows hold `period`
// lanes, each of which always belongs to the same channel.
//
// Memory is walked once, as columns.ts says; sums stand in float32 for a tile of rows, then in float64.

import { wide } from "./pairs";
import { distanceOfPairs, MOST_SUMMED, rowOfPair, rowsOfBlock, SHORT_STRIP, STRIP } from "./columns";
import { further, MOST, readable, valueAt } from "./storage";
import { bytes, increase, loadGated, madd, zeros } from "./vectors";

/** Rows of float16 that are widened at once, and how many of their lanes. */
const HALF_ROWS: u32 = 8;
const WIDENED: u32 = MOST / HALF_ROWS;
/** Rows of a tile, a multiple of those of any block. */
const TILE: u32 = 256;

/**
 * Gradient sums of elements [from, to) of matrices of rows of `period` lanes, per channel.
 *
 * @param x first byte of forward's input
 * @param dy first byte of the gradient of its output
 * @param output first byte of its output, where dy counts only if that is positive; 0 where dy always counts
 * @param half 1 for float16, 0 for float32
 * @param inStrips whether rows of float32 are walked in strips, as columns.ts says; rows of float16 are
 * @param period lanes of a row, a multiple of 4; lane j belongs to channel (j / inner) % channels; `from` is a multiple of it
 * @param his means as float32, per lane
 * @param result planes of float64 per channel: sum of dy, of dy * (x - mean)
 * @param scratch room for period x 24 bytes, and 3 x MOST float32
 */
export function sumsOfColumns(
  x: usize,
  dy: usize,
  output: usize,
  half: bool,
  inStrips: bool,
  channels: u32,
  inner: u32,
  period: u32,
  from: u32,
  to: u32,
  his: usize,
  result: usize,
  scratch: usize,
): void {
  const plane = bytes(period);
  const isChannel = period == channels; // Every lane: its sums are the result.
  const dys = isChannel ? result : scratch;
  const products = dys + 2 * plane;
  const dyLanes = scratch + 4 * plane;
  const productLanes = dyLanes + plane;
  const widened = productLanes + plane;
  memory.fill(dys, 0, 4 * plane);
  memory.fill(dyLanes, 0, 2 * plane);
  const rows = (to - from) / period;
  const inBlocks = half || inStrips;
  const step: u32 = half ? HALF_ROWS : inStrips ? min(rowsOfBlock(period), MOST_SUMMED) : 2;
  const distance = distanceOfPairs(rows, period);
  for (let settled: u32 = 0; settled < rows; settled += TILE) {
    const end = min(rows, settled + TILE);
    for (let done = settled; done < end; done += step) {
      const group = min(step, end - done);
      const pair = !inBlocks && group == 2;
      const first = from + (pair ? rowOfPair(done / 2, distance) : done) * period;
      if (half) {
        addHalves(x, dy, output, first, period, group, his, dyLanes, productLanes, widened);
      } else {
        const at = bytes(first);
        const gates = further(output, at);
        const below = pair ? bytes(distance * period) : 0;
        addFloats(x + at, dy + at, gates, plane, group, below, his, dyLanes, productLanes, period);
      }
    }
    settle(period, dyLanes, productLanes, dys, products);
  }
  addPartialRow(x, dy, output, half, from + rows * period, to - from - rows * period, his, dys, products);
  if (isChannel) return;
  memory.fill(result, 0, wide(0, 2 * channels));
  collect(period, dys, products, channels, inner, result);
}

/** Adds a block of rows, a few lanes of it widened at a time. */
function addHalves(
  x: usize,
  dy: usize,
  output: usize,
  first: u32,
  period: u32,
  rows: u32,
  his: usize,
  dyLanes: usize,
  productLanes: usize,
  widened: usize,
): void {
  const stride = bytes(WIDENED);
  const gradients = widened + bytes(MOST);
  const gates = output ? gradients + bytes(MOST) : 0;
  for (let lane: u32 = 0; lane < period; lane += WIDENED) {
    const lanes = min(WIDENED, period - lane);
    const at = bytes(lane);
    for (let r: u32 = 0; r < rows; r++) {
      const element = first + r * period + lane;
      const row = <usize> r * stride;
      readable(x, element, lanes, true, widened + row);
      readable(dy, element, lanes, true, gradients + row);
      if (output) readable(output, element, lanes, true, gates + row);
    }
    addFloats(widened, gradients, gates, stride, rows, 0, his + at, dyLanes + at, productLanes + at, lanes);
  }
}

/** Adds a block of rows to the sums of their lanes; or two rows, `below` bytes apart. */
function addFloats(
  x: usize,
  g: usize,
  gate: usize,
  stride: usize,
  rows: u32,
  below: usize,
  his: usize,
  dys: usize,
  products: usize,
  lanes: u32,
): void {
  if (below && gate) addPair(x, g, gate, below, his, dys, products, lanes, true);
  else if (below) addPair(x, g, 0, below, his, dys, products, lanes, false);
  else if (gate) addStrips(x, g, gate, stride, rows, his, dys, products, lanes, true);
  else addStrips(x, g, 0, stride, rows, his, dys, products, lanes, false);
}

// @ts-ignore: decorator
@inline
function addPair(
  x: usize,
  g: usize,
  gate: usize,
  below: usize,
  his: usize,
  dys: usize,
  products: usize,
  lanes: u32,
  hasGate: bool,
): void {
  const x1 = x + below, y1 = g + below, z1 = gate + below;
  for (let j: usize = 0; j < bytes(lanes); j += 16) {
    const hi = v128.load(his + j);
    const g0 = loadGated(g + j, gate + j, hasGate);
    const g1 = loadGated(y1 + j, z1 + j, hasGate);
    const d0 = f32x4.sub(v128.load(x + j), hi);
    const d1 = f32x4.sub(v128.load(x1 + j), hi);
    v128.store(dys + j, f32x4.add(v128.load(dys + j), f32x4.add(g0, g1)));
    v128.store(products + j, f32x4.add(v128.load(products + j), madd(g1, d1, f32x4.mul(g0, d0))));
  }
}

/** Strip by strip: the block has sums of its own, in registers, so that digits are lost once a block, not once a row. */
// @ts-ignore: decorator
@inline
function addStrips(
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
  const height = <usize> rows * stride;
  let j: usize = 0;
  for (const whole = bytes(lanes & ~(STRIP - 1)); j < whole; j += bytes(STRIP)) {
    addStrip(x, g, gate, j, stride, height, his, dys, products, hasGate, true);
  }
  if (j + bytes(SHORT_STRIP) == bytes(lanes)) {
    addStrip(x, g, gate, j, stride, height, his, dys, products, hasGate, false);
    return;
  }
  for (; j < bytes(lanes); j += 16) {
    const hi = v128.load(his + j);
    let sum = zeros(), product = zeros();
    for (let k = j; k < j + height; k += stride) {
      const gradient = loadGated(g + k, gate + k, hasGate);
      sum = f32x4.add(sum, gradient);
      product = madd(f32x4.sub(v128.load(x + k), hi), gradient, product);
    }
    v128.store(dys + j, f32x4.add(v128.load(dys + j), sum));
    v128.store(products + j, f32x4.add(v128.load(products + j), product));
  }
}

/**
 * The strip at byte j of a row, of four vectors or of three. It is given j, not addresses of sums: those would take up registers
 * during the loop ([256, 128]: 5.6 instead of 4.3 us).
 */
// @ts-ignore: decorator
@inline
function addStrip(
  x: usize,
  g: usize,
  gate: usize,
  j: usize,
  stride: usize,
  height: usize,
  his: usize,
  dys: usize,
  products: usize,
  hasGate: bool,
  four: bool,
): void {
  const h0 = v128.load(his + j), h1 = v128.load(his + j, 16), h2 = v128.load(his + j, 32);
  const h3 = four ? v128.load(his + j, 48) : h2;
  let s0 = zeros(), s1 = zeros(), s2 = zeros(), s3 = zeros();
  let p0 = zeros(), p1 = zeros(), p2 = zeros(), p3 = zeros();
  let input = x + j, gradient = g + j, output = gate + j;
  for (const end = input + height; input < end; input += stride, gradient += stride, output += stride) {
    const g0 = loadGated(gradient, output, hasGate);
    s0 = f32x4.add(s0, g0);
    p0 = madd(f32x4.sub(v128.load(input), h0), g0, p0);
    const g1 = loadGated(gradient + 16, output + 16, hasGate);
    s1 = f32x4.add(s1, g1);
    p1 = madd(f32x4.sub(v128.load(input, 16), h1), g1, p1);
    const g2 = loadGated(gradient + 32, output + 32, hasGate);
    s2 = f32x4.add(s2, g2);
    p2 = madd(f32x4.sub(v128.load(input, 32), h2), g2, p2);
    if (four) {
      const g3 = loadGated(gradient + 48, output + 48, hasGate);
      s3 = f32x4.add(s3, g3);
      p3 = madd(f32x4.sub(v128.load(input, 48), h3), g3, p3);
    }
  }
  increase(dys + j, s0, s1, s2, s3, four);
  increase(products + j, p0, p1, p2, p3, four);
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

/** Adds the lanes of every channel. */
function collect(
  period: u32,
  dys: usize,
  products: usize,
  channels: u32,
  inner: u32,
  result: usize,
): void {
  let lane: u32 = 0;
  while (lane < period) {
    for (let c: u32 = 0; c < channels; c++) {
      const dy = wide(result, c), product = wide(result, channels + c);
      for (let i: u32 = 0; i < inner; i++, lane++) {
        store<f64>(dy, load<f64>(dy) + load<f64>(wide(dys, lane)));
        store<f64>(product, load<f64>(product) + load<f64>(wide(products, lane)));
      }
    }
  }
}
