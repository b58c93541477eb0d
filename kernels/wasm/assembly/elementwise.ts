// Operations that know no channels, on elements [from, to), and the way between the two memory orders.

import { address, MOST, narrow, readable } from "./storage";
import { bytes } from "./vectors";

/** x + scale * y, in the storage of x; in float64, so that the product is not rounded before the sum. */
export function addScaled(
  x: usize, halfX: bool, y: usize, halfY: bool, scale: f64, result: usize, from: u32, to: u32, scratch: usize,
): void {
  while (from < to) {
    const length = min(to - from, MOST);
    const augend = readable(x, from, length, halfX, scratch);
    const addend = readable(y, from, length, halfY, scratch + bytes(MOST));
    const output = halfX ? scratch : address(result, from, false);
    const factor = f64x2.splat(scale);
    const end = bytes(length & ~1);
    for (let i: usize = 0; i < end; i += 8) {
      const a = f64x2.promote_low_f32x4(v128.load64_zero(augend + i));
      const b = f64x2.promote_low_f32x4(v128.load64_zero(addend + i));
      const sum = f32x4.demote_f64x2_zero(f64x2.add(a, f64x2.mul(factor, b)));
      v128.store64_lane(output + i, sum, 0);
    }
    if (length & 1) {
      const sum = <f64> load<f32>(augend + end) + scale * <f64> load<f32>(addend + end);
      store<f32>(output + end, <f32> sum);
    }
    if (halfX) narrow(scratch, address(result, from, true), length);
    from += length;
  }
}

/** Elements of a square that is read row by row and written column by column out of the first-level cache. */
const TILE: u32 = 32;

/** Transposes samples [from, to), each a matrix of rows x columns, to columns x rows. */
export function transpose(x: usize, result: usize, half: bool, rows: u32, columns: u32, from: u32, to: u32): void {
  for (let n = from; n < to; n++) {
    const sample = n * rows * columns;
    for (let row: u32 = 0; row < rows; row += TILE) {
      const lastRow = min(row + TILE, rows);
      for (let column: u32 = 0; column < columns; column += TILE) {
        const lastColumn = min(column + TILE, columns);
        for (let r = row; r < lastRow; r++) {
          for (let c = column; c < lastColumn; c++) {
            const source = address(x, sample + r * columns + c, half);
            const target = address(result, sample + c * rows + r, half);
            if (half) store<u16>(target, load<u16>(source));
            else store<u32>(target, load<u32>(source));
          }
        }
      }
    }
  }
}

/** Copies elements [from, to). */
export function copy(x: usize, result: usize, half: bool, from: u32, to: u32): void {
  const source = address(x, from, half);
  memory.copy(address(result, from, half), source, address(x, to, half) - source);
}
