/** Linear layers and convolutions by their definition, in float64 and without any code of the library. */

/** Kinds of layers by PyTorch's names: axes of the kernel, and whether the weight begins with the input channels. */
export const KINDS = {
  linear: { axes: 0, transposed: false },
  "linear (in, out)": { axes: 0, transposed: true },
  conv1d: { axes: 1, transposed: false },
  conv2d: { axes: 2, transposed: false },
  conv_transpose1d: { axes: 1, transposed: true },
  conv_transpose2d: { axes: 2, transposed: true },
} as const;

/** A layer's sizes. Kernel and input have two axes whatever the kind, with extents of 1 where it has none. */
export interface Geometry {
  readonly kind: keyof typeof KINDS;
  readonly groups: number;
  /** Channels of each group. */
  readonly inputs: number;
  readonly outputs: number;
  readonly kernel: readonly [number, number];
  readonly input: readonly [number, number];
  readonly stride: number;
  readonly padding: number;
}

/** A convolution by its definition, in float64; shape (out, height, width), of one sample. */
export function convolve(
  { kind, groups, inputs, outputs, kernel, input, stride, padding }: Geometry,
  { weight, bias }: { readonly weight: ArrayLike<number>; readonly bias: ArrayLike<number> | null },
  x: ArrayLike<number>,
): number[][] {
  const { transposed } = KINDS[kind];
  const [height, width] = input.map((extent, axis) =>
    transposed
      ? (extent - 1) * stride + kernel[axis] - 2 * padding
      : Math.floor((extent + 2 * padding - kernel[axis]) / stride) + 1
  );
  const y = Array.from(
    { length: groups * outputs },
    (_, c) => new Array<number>(height * width).fill(bias?.[c] ?? 0),
  );
  for (let g = 0; g < groups; g++) {
    for (let i = g * inputs; i < (g + 1) * inputs; i++) {
      for (let o = g * outputs; o < (g + 1) * outputs; o++) {
        const row = transposed ? i * outputs + o % outputs : o * inputs + i % inputs;
        for (let k = 0; k < kernel[0] * kernel[1]; k++) {
          const [down, right] = [Math.trunc(k / kernel[1]), k % kernel[1]];
          const w = weight[row * kernel[0] * kernel[1] + k];
          const [steps, ...extent] = transposed
            ? [input, height, width]
            : [[height, width], ...input];
          for (let a = 0; a < steps[0]; a++) {
            for (let b = 0; b < steps[1]; b++) {
              // From a coarse grid of steps to a fine one: that of the input, or of a transposed layer's output.
              const [p, q] = [a * stride - padding + down, b * stride - padding + right];
              if (p < 0 || q < 0 || p >= extent[0] || q >= extent[1]) continue;
              if (transposed) y[o][p * width + q] += x[(i * input[0] + a) * input[1] + b] * w;
              else y[o][a * width + b] += x[(i * input[0] + p) * input[1] + q] * w;
            }
          }
        }
      }
    }
  }
  return y;
}
