/**
 * How far results are from float64, on some channels of a batch.
 *
 * @module
 */

import type { Case } from "./cases.ts";

/** A batch on the host, in the memory order of its case, rounded to its storage. */
export interface Numbers {
  readonly x: Float32Array<ArrayBuffer>;
  readonly dy: Float32Array<ArrayBuffer>;
  readonly residual: Float32Array<ArrayBuffer>;
  readonly weight: Float32Array<ArrayBuffer>;
  readonly bias: Float32Array<ArrayBuffer>;
}

/** What a device gave. */
export interface Results {
  readonly y: Float32Array;
  readonly dx: Float32Array;
}

/** Greatest distances. */
export interface Errors {
  readonly y: number;
  readonly dx: number;
}

/** Channels that are looked at: all of few, some of many. */
const LOOKED_AT = 6;
/** Distance that no rounding of a storage explains, for values up to about 5. */
export const WRONG = { float32: 1e-4, float16: 2e-2 } as const;

/**
 * Computes some channels in float64, by two passes, and compares.
 *
 * A gradient counts where the device's own output is positive: next to 0 rounding decides that.
 *
 * @param one the case
 * @param numbers the batch
 * @param results y and dx, in its memory order
 * @param eps of the normalization
 * @returns the greatest distances; NaN counts as infinitely far
 */
export function errorsOf(
  { batch: { shape: [samples, channels, ...spatial], format }, fused }: Case,
  { x, dy, residual, weight, bias }: Numbers,
  results: Results,
  eps: number,
): Errors {
  const inner = spatial.reduce((product, extent) => product * extent, 1);
  const count = samples * inner;
  const [stepSample, stepChannel, stepInner] = format === "channelsLast"
    ? [inner * channels, 1, channels]
    : [channels * inner, inner, 1];
  const worst = { y: 0, dx: 0 };
  const note = (name: keyof Errors, error: number) => {
    if (!(Math.abs(error) <= worst[name])) {
      worst[name] = Number.isNaN(error) ? Infinity : Math.abs(error);
    }
  };
  const step = Math.max(1, Math.floor((channels - 1) / (LOOKED_AT - 1)));
  for (let c = 0; c < channels; c += step) {
    const each = (body: (p: number) => void) => {
      for (let n = 0; n < samples; n++) {
        for (let i = 0; i < inner; i++) body(n * stepSample + c * stepChannel + i * stepInner);
      }
    };
    const through = (p: number) => fused && !(results.y[p] > 0) ? 0 : dy[p];
    let [mean, m2, sum, product] = [0, 0, 0, 0];
    each((p) => mean += x[p]);
    mean /= count;
    each((p) => m2 += (x[p] - mean) ** 2);
    each((p) => sum += through(p));
    each((p) => product += through(p) * (x[p] - mean));
    const s = 1 / Math.sqrt(m2 / count + eps);
    each((p) => {
      const plain = (x[p] - mean) * s * weight[c] + bias[c];
      note("y", results.y[p] - (fused ? Math.max(plain + residual[p], 0) : plain));
      const projected = (x[p] - mean) * s * s * product / count;
      note("dx", results.dx[p] - weight[c] * s * (through(p) - sum / count - projected));
    });
  }
  return worst;
}
