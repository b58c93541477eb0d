// A channel once more, in float64 and by two passes, where its float32 sums were not finite: so NaN, infinities and numbers
// whose squares float32 cannot hold give what float64 arithmetic gives. Neighbouring channels lie `laneInner`
// elements apart: 1, or those of a channel in one sample.

import { valueAt } from "./storage";
import { passedOne, zeros } from "./vectors";

/** Whether so many pairs of float64 are finite, all of them. */
function areFinite(at: usize, pairs: u32): bool {
  let differs = zeros();
  for (const end = at + (<usize> pairs << 4); at < end; at += 16) {
    const v = v128.load(at);
    differs = v128.or(differs, f64x2.ne(f64x2.sub(v, v), zeros()));
  }
  return !v128.any_true(differs);
}

/** Computes again the moments of every channel whose mean or m2 is not finite. */
export function exactMoments(x: usize, half: bool, batch: u32, channels: u32, inner: u32, laneInner: u32, moments: usize): void {
  if (areFinite(moments + 8, channels)) return;
  const count = load<f64>(moments);
  const sample = channels * inner;
  const stride = laneInner == inner ? 1 : channels;
  for (let c: u32 = 0; c < channels; c++) {
    const means = moments + 8 + (<usize> c << 3);
    const m2s = means + (<usize> channels << 3);
    if (isFinite<f64>(load<f64>(means)) && isFinite<f64>(load<f64>(m2s))) continue;
    let sum: f64 = 0;
    for (let n: u32 = 0; n < batch; n++) {
      let at = n * sample + c * laneInner;
      for (let i: u32 = 0; i < inner; i++, at += stride) sum += valueAt(x, at, half);
    }
    const mean = sum / count;
    let m2: f64 = 0;
    for (let n: u32 = 0; n < batch; n++) {
      let at = n * sample + c * laneInner;
      for (let i: u32 = 0; i < inner; i++, at += stride) {
        const deviation = valueAt(x, at, half) - mean;
        m2 += deviation * deviation;
      }
    }
    store<f64>(means, mean);
    store<f64>(m2s, m2);
  }
}

/**
 * Computes again the gradient sums of every channel that has one that is not finite, with means as channels.ts has them. A term
 * whose dy is 0 is left out: x may be infinite where no gradient flows. With weights it is dy times that of its place, and 0 where that is.
 */
export function exactSums(
  x: usize, dy: usize, output: usize, half: bool, batch: u32, channels: u32, inner: u32, laneInner: u32,
  moments: usize, runningMean: usize, sums: usize, weights: usize,
): void {
  if (areFinite(sums, channels)) return;
  const sample = channels * inner;
  const stride = laneInner == inner ? 1 : channels;
  for (let c: u32 = 0; c < channels; c++) {
    const dys = sums + (<usize> c << 3);
    const products = dys + (<usize> channels << 3);
    if (isFinite<f64>(load<f64>(dys)) && isFinite<f64>(load<f64>(products))) continue;
    const mean = moments
      ? load<f64>(moments + 8 + (<usize> c << 3))
      : <f64> load<f32>(runningMean + (<usize> c << 2));
    let sum: f64 = 0, product: f64 = 0;
    for (let n: u32 = 0; n < batch; n++) {
      let at = n * sample + c * laneInner;
      for (let i: u32 = 0; i < inner; i++, at += stride) {
        const weight = weights ? valueAt(weights, n * inner + i, false) : 1;
        const value = weight == 0 ? 0 : weight * valueAt(dy, at, half);
        const gradient = output ? passedOne(value, valueAt(output, at, half)) : value;
        sum += gradient;
        if (gradient != 0) product += gradient * (valueAt(x, at, half) - mean);
      }
    }
    store<f64>(dys, sum);
    store<f64>(products, product);
  }
}
