/** float16 where there is no Float16Array, as in Node 20 and 22. */

/** Rounds numbers to float16, ties to even. */
export function halves(values: ArrayLike<number>): Float32Array {
  return Float32Array.from(values, (value) => {
    if (value === 0 || !Number.isFinite(value)) return value;
    const size = Math.abs(value);
    // Below 2^-14 numbers are subnormal, and as far apart as those next to it.
    const unit = 2 ** (Math.max(-14, Math.floor(Math.log2(size))) - 10);
    const down = Math.floor(size / unit);
    const rest = size / unit - down;
    const isUp = rest > 0.5 || (rest === 0.5 && down % 2 === 1);
    const rounded = (isUp ? down + 1 : down) * unit;
    return Math.sign(value) * (rounded > 65_504 ? Infinity : rounded);
  });
}
