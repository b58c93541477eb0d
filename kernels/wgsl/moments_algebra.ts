/**
 * The algebra of moments in WGSL, and its tree over a workgroup.
 *
 * In memory moments are a vec4f: x + y is the mean, as the sum of a float32 and what it is short of; z is m2, w the count. An
 * array of moments has `slices` of them per channel, side by side. A lane has `Moments`, of one channel or of four.
 *
 * @module
 */

import { members, type Tile, toChannels } from "./tiles.ts";

/** Parameters of every kernel that uses the algebra. */
export const ALGEBRA_PARAMETERS = {
  /** Always 0, which no compiler can know. */
  zero: "u32",
} as const;

/**
 * WGSL: `Moments`, and `merge` of two of them by Chan, Golub, LeVeque 1983, eq. 2.1. Needs `tiles`.
 *
 * The difference of equal means is exactly 0, so that a constant channel keeps its value and m2 = 0 whatever the order.
 */
export function algebra({ pack }: Pick<Tile, "pack">): string {
  const bits = pack === "channels" ? "vec4u" : "u32";
  return `
struct Moments {
  mean: Statistic,
  short: Statistic, // what the mean is short of
  m2: Statistic,
  count: f32,
}

// The bits of x, which fast arithmetic cannot simplify away: a two-sum is 0 for whoever believes in real numbers.
fn exact(x: Statistic) -> Statistic {
  return bitcast<Statistic>(bitcast<${bits}>(x) ^ ${bits}(p.zero));
}

// Moments whose mean is a + b (what a float32 of it is short of: Knuth, TAOCP 4.2.2, theorem B).
fn about(a: Statistic, b: Statistic, m2: Statistic, count: f32) -> Moments {
  let sum = exact(a + b);
  let part = exact(sum - a);
  return Moments(sum, (a - exact(sum - part)) + (b - part), m2, count);
}

fn merge(a: Moments, b: Moments) -> Moments {
  if (a.count == 0.0) { return b; }
  if (b.count == 0.0) { return a; }
  let count = a.count + b.count;
  let share = b.count / count;
  let delta = (b.mean - a.mean) + (b.short - a.short);
  let m2 = a.m2 + b.m2 + delta * delta * (a.count * share);
  return about(a.mean, a.short + delta * share, m2, count);
}

fn nothing() -> Moments {
  return Moments(Statistic(0.0), Statistic(0.0), Statistic(0.0), 0.0);
}
`;
}

/**
 * WGSL: `climb` merges what invocations have over the rows of each lane, of which the first `rows` have any, and gives all of
 * a lane the result. To be called by all invocations. Needs `tiles` and `algebra`.
 */
export function climb(tile: Tile): string {
  const { taken } = members(tile);
  if (tile.subgroups !== "none") {
    return `
var<workgroup> tree: array<Moments, ${tile.workgroup}>;

// Subgroups are of neighbours, whatever their size is: they merge in registers, and leave one record each to all.
fn climb(thread: u32, rows: u32, mine: Moments${taken}) -> Moments {
  var sum = mine;
  for (var step = 1u; step < members; step *= 2u) {
    let other = Moments(
      subgroupShuffleXor(sum.mean, step),
      subgroupShuffleXor(sum.short, step),
      subgroupShuffleXor(sum.m2, step),
      subgroupShuffleXor(sum.count, step),
    );
    sum = merge(sum, other);
  }
  workgroupBarrier(); // Whoever reads the tree of before has done so.
  if (member == 0u) { tree[thread / members] = sum; }
  workgroupBarrier();
  sum = tree[0];
  for (var k = 1u; k * members < ${tile.workgroup}u; k++) { sum = merge(sum, tree[k]); }
  return sum;
}
`;
  }
  return `
var<workgroup> tree: array<Moments, ${tile.workgroup}>;

fn climb(thread: u32, rows: u32, mine: Moments) -> Moments {
  workgroupBarrier(); // Whoever reads the tree of before has done so.
  tree[thread] = mine;
  workgroupBarrier();
  for (var half = ROWS / 2u; half > 0u; half /= 2u) {
    if (half >= rows) { continue; }
    if (thread < half * LANES) { tree[thread] = merge(tree[thread], tree[thread + half * LANES]); }
    workgroupBarrier();
  }
  return tree[thread % LANES];
}
`;
}

/** WGSL: `gather`, the moments of a lane from all slices of `moments`, for all of its invocations. */
export function gather(tile: Tile): string {
  const { given, taken } = members(tile);
  return `
fn slice(channel: u32, k: u32) -> Moments {
  let first = p.momentsAt + channel * p.momentsSlices + k;
  let a = moments[first];
${
    tile.pack === "channels"
      ? `  let b = moments[first + p.momentsSlices];
  let c = moments[first + 2u * p.momentsSlices];
  let d = moments[first + 3u * p.momentsSlices];
  return Moments(
    vec4f(a.x, b.x, c.x, d.x),
    vec4f(a.y, b.y, c.y, d.y),
    vec4f(a.z, b.z, c.z, d.z),
    a.w,
  );`
      : "  return Moments(a.x, a.y, a.z, a.w);"
  }
}

fn gather(place: Place, thread: u32${taken}) -> Moments {
  // Beyond the last channel the last one's are as good as any.
  if (p.momentsSlices == 1u) { return slice(min(place.channel, (p.channels - 1u) * WIDE), 0u); }
  var mine = nothing();
  if (exists(place)) {
    for (var k = place.row; k < p.momentsSlices; k += ROWS) {
      mine = merge(mine, slice(place.channel, k));
    }
  }
  return climb(thread, p.momentsSlices, mine${given});
}
`;
}

/** WGSL: writes a lane's `Moments` to where `at` says a channel's are. */
export function writeMoments(tile: Tile, name: string, at: (channel: string) => string): string {
  return toChannels(
    tile,
    (channel, i) =>
      `${name}[${
        at(channel)
      }] = vec4f(whole.mean${i}, whole.short${i}, whole.m2${i}, whole.count);`,
  );
}

/** WGSL: 1/sqrt(variance + eps), 0 for a constant channel without eps; the smallest normal float32 is the least variance. */
export const INVSTD = `
fn invstd(m2: Statistic, count: f32) -> Statistic {
  let variance = select(m2 / count, Statistic(0.0), count == 0.0) + p.eps;
  return select(inverseSqrt(variance), Statistic(0.0), variance < Statistic(1.17549435e-38));
}
`;
