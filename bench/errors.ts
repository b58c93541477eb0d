/** How far results are from float64: two plain passes in memory order, without any code of the library. */

import { type BatchShape, elementsOf, EPS, extentsOf, type Numbers } from "./batches.ts";

/** What forward and backward gave, in the memory order of the batch; sums where they were asked for. */
export interface Results {
  readonly y: Float32Array;
  readonly dx: Float32Array;
  readonly gradWeight?: Float32Array;
  readonly gradBias?: Float32Array;
}

/** Greatest distances; NaN counts as infinitely far. */
export interface Errors {
  readonly y: number;
  readonly dx: number;
  /** Of dweight and dbias, in units of the root of how many values they sum. */
  readonly sums: number;
}

/**
 * Compares all elements. With a residual and ReLU fused, a gradient counts where the device's own output is positive: next to
 * 0 rounding decides that.
 */
export function errorsOf(
  batch: BatchShape,
  { x, dy, residual, weight, bias }: Numbers,
  results: Results,
  fused = false,
): Errors {
  const { channels, inner } = extentsOf(batch);
  const [elements, run] = [elementsOf(batch), batch.format === "channelsLast" ? 1 : inner];
  const count = elements / channels;
  const each = (body: (p: number, c: number) => void) => {
    for (let p = 0, c = 0; p < elements; c = c + 1 === channels ? 0 : c + 1) {
      for (const end = p + run; p < end; p++) body(p, c);
    }
  };
  const through = (p: number) => fused && !(results.y[p] > 0) ? 0 : dy[p];
  const [mean, m2, sum, product] = [0, 1, 2, 3].map(() => new Float64Array(channels));
  each((p, c) => mean[c] += x[p] / count);
  each((p, c) => m2[c] += (x[p] - mean[c]) ** 2);
  each((p, c) => sum[c] += through(p));
  each((p, c) => product[c] += through(p) * (x[p] - mean[c]));
  const invstd = m2.map((value) => 1 / Math.sqrt(value / count + EPS));
  const worst = { y: 0, dx: 0, sums: 0 };
  const note = (name: keyof Errors, difference: number) => {
    const error = Math.abs(difference);
    if (!(error <= worst[name])) worst[name] = Number.isNaN(error) ? Infinity : error;
  };
  each((p, c) => {
    const [xmu, s] = [x[p] - mean[c], invstd[c]];
    const plain = xmu * s * weight[c] + bias[c];
    note("y", results.y[p] - (fused ? Math.max(plain + residual[p], 0) : plain));
    const projected = xmu * s * s * product[c] / count;
    note("dx", results.dx[p] - weight[c] * s * (through(p) - sum[c] / count - projected));
  });
  for (let c = 0; c < channels; c++) {
    const { gradWeight, gradBias } = results;
    if (gradWeight) note("sums", (gradWeight[c] - product[c] * invstd[c]) / Math.sqrt(count));
    if (gradBias) note("sums", (gradBias[c] - sum[c]) / Math.sqrt(count));
  }
  return worst;
}

/** Fails where a result is further off than rounding explains: it is not timed then. */
export function assertRight({ y, dx, sums }: Errors, most: number): void {
  if (Math.max(y, dx, sums) <= most) return;
  throw new RangeError(`wrong: y is off by ${y}, dx by ${dx}, their sums by ${sums}`);
}
