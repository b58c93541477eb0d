/** Elements of a tensor there and back between its own memory order and the row-major one of checkpoints. */

import { extents, type Format } from "./tensor.ts";

/** How the elements of an array lie, logically and in memory. */
export interface Layout {
  readonly shape: readonly number[];
  readonly format: Format;
}

type Values = Float32Array<ArrayBuffer>;

/** Puts elements into row-major order over their logical shape. */
export function toRowMajor(values: Values, { shape, format }: Layout): Values {
  const { batch, channels, inner } = extents(shape);
  return format === "channelsFirst" ? values : transposed(values, batch, inner, channels);
}

/** Puts elements from row-major order into that of a tensor's memory. */
export function fromRowMajor(values: Values, { shape, format }: Layout): Values {
  const { batch, channels, inner } = extents(shape);
  return format === "channelsFirst" ? values : transposed(values, batch, channels, inner);
}

/** Copied as integers, since a number that is not one may come out of a float's register with other bits. */
function transposed(values: Values, batch: number, rows: number, columns: number): Values {
  const from = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const to = new Uint32Array(values.length);
  const plane = rows * columns;
  for (let n = 0; n < batch; n++) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        to[n * plane + column * rows + row] = from[n * plane + row * columns + column];
      }
    }
  }
  return new Float32Array(to.buffer);
}
