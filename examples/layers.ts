/**
 * The layers that are not the library's, as plain loops on the host. Sums within an image are taken in float64 and
 * stored as float32; gradients of weights add up over the images in float32, as frameworks do, so that the order of the
 * images shows as rounding.
 *
 * Images lie channels last: a row of a matrix is one pixel with all its channels.
 *
 * @module
 */

/** A matrix product's extents: `rows` vectors of `inputs` elements become vectors of `outputs` elements. */
export interface LinearShape {
  readonly rows: number;
  readonly inputs: number;
  readonly outputs: number;
}

/** Extents of a 3x3 window that moves over square images with a border of one zero. */
export interface WindowShape {
  readonly images: number;
  readonly side: number;
  readonly channels: number;
  readonly stride: number;
}

const WINDOW = 3;
/** Cells of the window. */
export const WINDOW_AREA = WINDOW ** 2;

/** Number of positions along a side that the window stops at. */
export function sideAfter(side: number, stride: number): number {
  return Math.floor((side - 1) / stride) + 1;
}

/** y = x * weight^T; x has shape (rows, inputs), weight (outputs, inputs), y (rows, outputs). */
export function linear(x: Float32Array, weight: Float32Array, shape: LinearShape): Float32Array {
  const { rows, inputs, outputs } = shape;
  const y = new Float32Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    const from = row * inputs;
    for (let o = 0; o < outputs; o++) {
      const at = o * inputs;
      let total = 0;
      for (let i = 0; i < inputs; i++) total += x[from + i] * weight[at + i];
      y[row * outputs + o] = total;
    }
  }
  return y;
}

/** dWeight = dy^T * x, shape (outputs, inputs), added up in float32. */
export function linearGradWeight(
  x: Float32Array,
  dy: Float32Array,
  { rows, inputs, outputs }: LinearShape,
): Float32Array {
  const gradWeight = new Float32Array(outputs * inputs);
  for (let row = 0; row < rows; row++) {
    const from = row * inputs;
    for (let o = 0; o < outputs; o++) {
      const gradient = dy[row * outputs + o];
      const at = o * inputs;
      for (let i = 0; i < inputs; i++) gradWeight[at + i] += gradient * x[from + i];
    }
  }
  return gradWeight;
}

/** dx = dy * weight, shape (rows, inputs). */
export function linearGradInput(
  dy: Float32Array,
  weight: Float32Array,
  { rows, inputs, outputs }: LinearShape,
): Float32Array {
  const gradInput = new Float32Array(rows * inputs);
  const total = new Float64Array(inputs);
  for (let row = 0; row < rows; row++) {
    total.fill(0);
    for (let o = 0; o < outputs; o++) {
      const gradient = dy[row * outputs + o];
      const at = o * inputs;
      for (let i = 0; i < inputs; i++) total[i] += gradient * weight[at + i];
    }
    gradInput.set(total, row * inputs);
  }
  return gradInput;
}

/** Sums of the columns of a matrix of shape (rows, columns), added up in float32. */
export function columnSums(matrix: Float32Array, columns: number): Float32Array {
  const sums = new Float32Array(columns);
  for (let i = 0; i < matrix.length; i++) sums[i % columns] += matrix[i];
  return sums;
}

/** Lays out what the window sees at each stop as a row of 9 * channels; a convolution is {@linkcode linear} of it. */
export function unfold(x: Float32Array, shape: WindowShape): Float32Array {
  const { channels } = shape;
  const rows = new Float32Array(rowElements(shape));
  slide(shape, (pixel, row) => {
    for (let c = 0; c < channels; c++) rows[row + c] = x[pixel + c];
  });
  return rows;
}

/** The transpose of {@linkcode unfold}: adds every row back to the pixels it was copied from. */
export function fold(rows: Float32Array, shape: WindowShape): Float32Array {
  const { images, side, channels } = shape;
  const total = new Float64Array(images * side * side * channels);
  slide(shape, (pixel, row) => {
    for (let c = 0; c < channels; c++) total[pixel + c] += rows[row + c];
  });
  return Float32Array.from(total);
}

/** What the loss says of a batch. */
export interface Loss {
  /** Sum over the batch of -log p(label). */
  readonly total: number;
  /** Images whose likeliest digit is the label. */
  readonly correct: number;
  /** Gradient of `total` in the logits. */
  readonly gradLogits: Float32Array;
}

/** Softmax and cross-entropy of logits of shape (images, classes). */
export function crossEntropy(logits: Float32Array, labels: Uint8Array, classes: number): Loss {
  const gradLogits = new Float32Array(logits.length);
  let [total, correct] = [0, 0];
  for (let n = 0; n < labels.length; n++) {
    const row = logits.subarray(n * classes, (n + 1) * classes);
    // Without its maximum taken off, exp overflows.
    const largest = Math.max(...row);
    const sum = row.reduce((all, logit) => all + Math.exp(logit - largest), 0);
    const label = labels[n];
    total += Math.log(sum) + largest - row[label];
    if (row[label] === largest) correct++;
    for (let c = 0; c < classes; c++) {
      gradLogits[n * classes + c] = Math.exp(row[c] - largest) / sum - (c === label ? 1 : 0);
    }
  }
  return { total, correct, gradLogits };
}

function rowElements({ images, side, channels, stride }: WindowShape): number {
  return images * sideAfter(side, stride) ** 2 * WINDOW_AREA * channels;
}

/** Visits every pixel that the window sees: where its channels begin in the image, and where in the row. */
function slide(
  { images, side, channels, stride }: WindowShape,
  visit: (pixel: number, row: number) => void,
): void {
  const stops = sideAfter(side, stride);
  let row = 0;
  for (let n = 0; n < images; n++) {
    for (let stop = 0; stop < stops ** 2; stop++) {
      const [top, left] = [Math.floor(stop / stops) * stride - 1, stop % stops * stride - 1];
      for (let cell = 0; cell < WINDOW_AREA; cell++, row += channels) {
        const [y, x] = [top + Math.floor(cell / WINDOW), left + cell % WINDOW];
        if (y < 0 || y >= side || x < 0 || x >= side) continue;
        visit(((n * side + y) * side + x) * channels, row);
      }
    }
  }
}
