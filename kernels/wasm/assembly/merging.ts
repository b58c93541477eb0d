// What several threads have summed becomes one: moments by Chan's formula, gradient sums by addition; once per channel.

import { lowPart, store64, wide } from "./pairs";

/**
 * Merges the moments of the other threads, planes of mean, m2 and count for each, into those of the first, in order, by Chan's
 * formula. An empty side changes nothing, not even the last bit. The first thread has left its mean and m2 in `moments`, and its
 * counts in `counts`, which are overwritten; `count` is that of all.
 */
export function mergeMoments(counts: usize, others: usize, threads: u32, channels: u32, count: f64, moments: usize): void {
  store<f64>(moments, count);
  for (let t: u32 = 0; t < threads; t++, others = wide(others, 3 * channels)) {
    for (let c: u32 = 0; c < channels; c += 2) {
      const toMean = wide(moments + 8, c), toM2 = wide(toMean, channels), toCount = wide(counts, c);
      const fromMean = wide(others, c), fromM2 = wide(fromMean, channels), fromCount = wide(fromM2, channels);
      const before = v128.load(toCount), more = v128.load(fromCount), mean = v128.load(toMean);
      const total = f64x2.add(before, more);
      // Where both are 0 the share is, too. Where one is, the other side comes out as it was, to the last bit.
      const share = f64x2.div(more, f64x2.max(total, f64x2.splat(f64.MIN_NORMAL_VALUE)));
      const delta = f64x2.sub(v128.load(fromMean), mean);
      const between = f64x2.mul(f64x2.mul(delta, delta), f64x2.mul(before, share));
      const left = channels - c;
      store64(toMean, f64x2.add(mean, f64x2.mul(delta, share)), left);
      store64(toM2, f64x2.add(v128.load(toM2), f64x2.add(v128.load(fromM2), between)), left);
      store64(toCount, total, left);
    }
  }
}

/**
 * Adds the gradient sums of the other threads to those of the first, in order, and puts the part of the mean into them that the
 * loops do not know: that of `moments`, 0 where the means were float32 and have no other part.
 */
export function mergeSums(others: usize, threads: u32, channels: u32, moments: usize, sums: usize): void {
  for (let t: u32 = 0; t < threads; t++, others = wide(others, 2 * channels)) {
    for (let i: u32 = 0; i < 2 * channels; i += 2) {
      v128.store(wide(sums, i), f64x2.add(v128.load(wide(sums, i)), v128.load(wide(others, i))));
    }
  }
  if (!moments) return;
  for (let c: u32 = 0; c < channels; c += 2) {
    const low = lowPart(v128.load(wide(moments + 8, c)));
    const products = wide(sums, channels + c);
    store64(products, f64x2.sub(v128.load(products), f64x2.mul(low, v128.load(wide(sums, c)))), channels - c);
  }
}
