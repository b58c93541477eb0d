/**
 * The layers as plain loops on the host. Sums within an image are taken in float64 and stored as float32; sums over
 * images add up in float32, as frameworks do, so that the order of the images shows as rounding.
 *
 * @module
 */

import { type Device, region, tensor } from "../mod.ts";
import {
  type Arithmetic,
  type Layers,
  type LinearShape,
  type Loss,
  type Moving,
  type Pace,
  sideAfter,
  unfolded,
  WINDOW,
  WINDOW_AREA,
  type WindowShape,
} from "./layers.ts";

/** The arithmetic of the layers on the host. */
export const HOST_ARITHMETIC: Arithmetic<Float32Array> = Object.freeze({
  linear,
  linearGradWeight,
  linearGradInput,
  columnSums,
  pickRows,
  unfold,
  fold,
  addBias: (x: Float32Array, bias: Float32Array, columns: number) =>
    x.map((value, i) => value + bias[i % columns]),
  relu: (x: Float32Array) => x.map((value) => Math.max(value, 0)),
  gate: (dy: Float32Array, output: Float32Array) => dy.map((value, i) => output[i] > 0 ? value : 0),
  crossEntropy,
  descend,
});

/**
 * Makes the layers on the host, beside batch norms on any device.
 *
 * @param device where the batch norms compute
 * @returns the layers; every vector that goes to a tensor or comes from one is copied
 */
export function hostLayers<A>(device: Device<A>): Layers<Float32Array, A> {
  return Object.freeze<Layers<Float32Array, A>>({
    ...HOST_ARITHMETIC,
    device,
    upload: (values) => values.slice(),
    read: (...vectors) => Promise.resolve(vectors.map((vector) => vector.slice())),
    slice: (vector, from, to) => vector.subarray(from, to),
    toTensor: (vector, shape) => tensor(device, vector, shape, { format: "channelsLast" }),
    fromArray: (array) => device.download(array),
    region: (body) => region(device, (scope) => body(hostLayers(scope))),
    free: () => {}, // The garbage collector's business.
  });
}

function linear(
  x: Float32Array,
  weight: Float32Array,
  { rows, inputs, outputs }: LinearShape,
): Float32Array {
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

function linearGradWeight(
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

function linearGradInput(
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

function columnSums(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const sums = new Float32Array(columns);
  for (let i = 0; i < rows * columns; i++) sums[i % columns] += matrix[i];
  return sums;
}

function pickRows(
  matrix: Float32Array,
  numbers: readonly number[],
  columns: number,
): Float32Array {
  const picked = new Float32Array(numbers.length * columns);
  numbers.forEach((number, row) =>
    picked.set(matrix.subarray(number * columns, (number + 1) * columns), row * columns)
  );
  return picked;
}

function unfold(x: Float32Array, shape: WindowShape): Float32Array {
  const { channels } = shape;
  const rows = new Float32Array(unfolded(shape));
  slide(shape, (pixel, row) => {
    for (let c = 0; c < channels; c++) rows[row + c] = x[pixel + c];
  });
  return rows;
}

function fold(rows: Float32Array, shape: WindowShape): Float32Array {
  const { images, side, channels } = shape;
  const total = new Float64Array(images * side * side * channels);
  slide(shape, (pixel, row) => {
    for (let c = 0; c < channels; c++) total[pixel + c] += rows[row + c];
  });
  return Float32Array.from(total);
}

function crossEntropy(
  logits: Float32Array,
  labels: Float32Array,
  images: number,
  classes: number,
): Loss<Float32Array> {
  const gradLogits = new Float32Array(images * classes);
  const scores = new Float32Array(images * 2);
  for (let n = 0; n < images; n++) {
    const row = logits.subarray(n * classes, (n + 1) * classes);
    // Without its maximum taken off, exp overflows.
    const largest = Math.max(...row);
    const sum = row.reduce((all, logit) => all + Math.exp(logit - largest), 0);
    const label = labels[n];
    scores[2 * n] = Math.log(sum) + largest - row[label];
    scores[2 * n + 1] = row[label] === largest ? 1 : 0;
    for (let c = 0; c < classes; c++) {
      gradLogits[n * classes + c] = Math.exp(row[c] - largest) / sum - (c === label ? 1 : 0);
    }
  }
  return { scores, gradLogits };
}

function descend(
  { parameters, velocity }: Moving<Float32Array>,
  gradient: Float64Array,
  { rate, momentum }: Pace,
): Moving<Float32Array> {
  const faster = velocity.map((value, i) => momentum * value + gradient[i]);
  return {
    parameters: parameters.map((value, i) => value - rate * faster[i]),
    velocity: faster,
  };
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
