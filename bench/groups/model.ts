/**
 * What collectives cost on paper: rounds of messages, each a latency and its bytes over a bandwidth.
 *
 * A message of b bytes takes alpha + beta*b (Hockney 1994, "The communication challenge for MPP", Parallel Computing
 * 20, 3), a fold of b bytes gamma*b besides (Thakur, Rabenseifner, Gropp 2005, "Optimization of collective
 * communication operations in MPICH", IJHPCA 19, 1). All ranks take a round together, and every rank sends and receives
 * at most one message in it. `tests/bench_scale_test.ts` plays each algorithm with real messages and compares.
 *
 * Ranks are numbered host by host, a power of two of them on each. The ranks of a host share its port to the network:
 * their messages in one round share its bandwidth.
 *
 * @module
 */

/** What every rank contributes: a header, then so many bytes per channel. Any part of it carries the header. */
export interface Wire {
  readonly channels: number;
  /** Bytes per channel. */
  readonly perChannel: number;
  /** Bytes of the header. */
  readonly header: number;
}

/** A way between ranks. */
export interface Link {
  /** Seconds per message. */
  readonly alpha: number;
  /** Seconds per byte. */
  readonly beta: number;
}

/** Rounds that are alike. */
export interface Rounds {
  /** How many. */
  readonly times: number;
  /** Bytes of the largest message. */
  readonly bytes: number;
  /** Most messages that leave one host; 0 where all stay within their hosts. */
  readonly leaving: number;
}

/** What a collective does. */
export interface Schedule {
  readonly rounds: readonly Rounds[];
  /** Bytes folded on the longest path. */
  readonly folded: number;
  /** Bytes that the busiest rank sends. */
  readonly sent: number;
  /** Bytes that the busiest rank receives; it may be another one. */
  readonly received: number;
}

/** Makes the schedule of a wire over so many ranks, of which so many share a host. */
export type Algorithm = (ranks: number, wire: Wire, perHost: number) => Schedule;

/** Where ranks compute. */
export interface Machine {
  /** Between ranks of one host. */
  readonly local: Link;
  /** Between hosts. */
  readonly network: Link;
  /** Seconds per byte folded. */
  readonly gamma: number;
}

/** Bytes of a whole wire. */
export function bytesOf({ channels, perChannel, header }: Wire): number {
  return header + channels * perChannel;
}

/**
 * Time of a schedule.
 *
 * @returns seconds: the sum over its rounds of alpha + beta * bytes, plus gamma * bytes folded
 */
export function timeOf({ rounds, folded }: Schedule, machine: Machine): number {
  const { local, network, gamma } = machine;
  return rounds.reduce((time, { times, bytes, leaving }) => {
    const { alpha, beta } = leaving > 0 ? network : local;
    return time + times * (alpha + beta * bytes * Math.max(1, leaving));
  }, folded * gamma);
}

/**
 * Reduction to rank 0 by a binomial tree, then broadcast down the same tree: 2*ceil(log2 p) rounds of the whole wire
 * (Thakur et al. 2005; Chan, Heimlich, Purkayastha, van de Geijn 2007, "Collective
 * communication: theory, practice, and experience", CCPE 19, 13).
 */
export const tree: Algorithm = (ranks, wire, perHost) => {
  check(ranks, perHost);
  const bytes = bytesOf(wire);
  const distances = powersBelow(ranks);
  const up = distances.map((distance) => ({
    times: 1,
    bytes,
    leaving: distance < perHost ? 0 : 1,
  }));
  const total = distances.length * bytes;
  return { rounds: [...up, ...up.toReversed()], folded: total, sent: total, received: total };
};

/**
 * Recursive doubling: in round k each rank exchanges what it has with the one whose number differs in bit k, so
 * log2 p rounds of the whole wire (Thakur et al. 2005). Where p is no power of two, the ranks above the
 * largest one give theirs away first and get the result at last: two rounds more.
 */
export const recursiveDoubling: Algorithm = (ranks, wire, perHost) => {
  check(ranks, perHost);
  const bytes = bytesOf(wire);
  const core = 2 ** Math.floor(Math.log2(ranks));
  const extra = ranks - core;
  const outside = extra === 0
    ? []
    : [{ times: 1, bytes, leaving: core < perHost ? 0 : Math.min(extra, perHost) }];
  const inside = powersBelow(core).map((distance) => ({
    times: 1,
    bytes,
    leaving: distance < perHost ? 0 : perHost,
  }));
  const total = (inside.length + outside.length) * bytes;
  return {
    rounds: [...outside, ...inside, ...outside],
    folded: total,
    sent: total,
    received: total,
  };
};

/**
 * Ring: p - 1 rounds scatter the reduction of p parts, p - 1 more gather them (Patarasuk, Yuan 2009, "Bandwidth optimal
 * all-reduce algorithms for clusters of workstations", JPDC 69, 2; Thakur et al. 2005). A part is
 * some channels, since the moments of one channel cannot be cut; a part without channels is an empty message.
 */
export const ring: Algorithm = (ranks, wire, perHost) => {
  check(ranks, perHost);
  if (ranks === 1) return { rounds: [], folded: 0, sent: 0, received: 0 };
  const { channels } = wire;
  const part = (count: number) => count === 0 ? 0 : bytesOf({ ...wire, channels: count });
  const least = Math.floor(channels / ranks);
  const larger = channels % ranks;
  const [small, large] = [part(least), part(larger > 0 ? least + 1 : least)];
  const all = larger * large + (ranks - larger) * small;
  // A rank skips one part on the way round and that part's neighbour on the second way.
  const skipped = small + (ranks - larger === 1 ? large : small);
  const total = 2 * all - skipped;
  return {
    rounds: [{ times: 2 * (ranks - 1), bytes: large, leaving: ranks > perHost ? 1 : 0 }],
    folded: (ranks - 1) * large,
    sent: total,
    received: total,
  };
};

/**
 * All-gather by doubling (Bruck, Ho, Kipnis, Upfal, Weathersby 1997, "Efficient algorithms for all-to-all
 * communications in multiport message-passing systems", IEEE TPDS 8, 11; Thakur et al. 2005):
 * ceil(log2 p) rounds, the fewest possible, and (p - 1) wires sent by every rank, which no all-gather can avoid. Then
 * each rank folds all p.
 */
export const allGather: Algorithm = (ranks, wire, perHost) => {
  check(ranks, perHost);
  const bytes = bytesOf(wire);
  const rounds = powersBelow(ranks).map((distance) => ({
    times: 1,
    bytes: bytes * Math.min(distance, ranks - distance),
    leaving: ranks > perHost ? Math.min(distance, perHost) : 0,
  }));
  const total = (ranks - 1) * bytes;
  return { rounds, folded: total, sent: total, received: total };
};

/** All-gather around a ring: p - 1 rounds of one wire (Thakur et al. 2005); the bytes are the same. */
export const ringAllGather: Algorithm = (ranks, wire, perHost) => {
  check(ranks, perHost);
  const bytes = bytesOf(wire);
  const total = (ranks - 1) * bytes;
  const rounds = ranks === 1 ? [] : [{ times: ranks - 1, bytes, leaving: ranks > perHost ? 1 : 0 }];
  return { rounds, folded: total, sent: total, received: total };
};

/**
 * Two levels, as `group.split` makes them: all-reduce within each host by recursive doubling, among the hosts' first
 * ranks by any algorithm, then broadcast within each host by a binomial tree.
 *
 * @param among what the first ranks use
 */
export function byHosts(among: Algorithm): Algorithm {
  return (ranks, wire, perHost) => {
    check(ranks, perHost);
    const within = recursiveDoubling(Math.min(ranks, perHost), wire, perHost);
    if (ranks <= perHost) return within;
    const between = among(ranks / perHost, wire, 1);
    const spread = { bytes: bytesOf(wire), times: Math.log2(perHost), leaving: 0 };
    return {
      rounds: [...within.rounds, ...between.rounds, ...spread.times > 0 ? [spread] : []],
      folded: within.folded + between.folded,
      sent: within.sent + between.sent + spread.times * spread.bytes,
      received: within.received + between.received,
    };
  };
}

/**
 * Fits alpha + beta * bytes to times by least squares of the relative errors, so that short messages count as much as
 * long ones.
 *
 * @param points bytes and seconds, two sizes at least
 * @returns the line, and the largest relative error of a point
 * @throws RangeError where the points have fewer than two sizes
 */
export function fit(
  points: readonly { readonly bytes: number; readonly seconds: number }[],
): Link & { readonly error: number } {
  const sizes = new Set(points.map(({ bytes }) => bytes)).size;
  if (sizes < 2) {
    throw new RangeError(
      `Cannot fit a line as the number of sizes must be at least 2: current value is ${sizes}`,
    );
  }
  // With weights 1/t^2, the normal equations of alpha + beta*b = t.
  const sum = (term: (bytes: number, seconds: number) => number) =>
    points.reduce((total, { bytes, seconds }) => total + term(bytes, seconds) / seconds ** 2, 0);
  const [w, wb, wbb] = [sum(() => 1), sum((b) => b), sum((b) => b * b)];
  const [wt, wbt] = [sum((_, t) => t), sum((b, t) => b * t)];
  const determinant = w * wbb - wb * wb;
  const alpha = (wbb * wt - wb * wbt) / determinant;
  const beta = (w * wbt - wb * wt) / determinant;
  const errors = points.map(({ bytes, seconds }) => Math.abs((alpha + beta * bytes) / seconds - 1));
  return { alpha, beta, error: Math.max(...errors) };
}

/** 1, 2, 4 and so on, as long as they are below the number of ranks. */
function powersBelow(ranks: number): number[] {
  return Array.from({ length: Math.ceil(Math.log2(ranks)) }, (_, k) => 2 ** k);
}

function check(ranks: number, perHost: number): void {
  if (!Number.isSafeInteger(ranks) || ranks < 1) {
    throw new RangeError(
      `Cannot lay out a collective as the number of ranks must be a positive integer: current value is ${ranks}`,
    );
  }
  if (!Number.isInteger(Math.log2(perHost)) || perHost < 1) {
    throw new RangeError(
      `Cannot lay out a collective as the ranks per host must be a power of two: current value is ${perHost}`,
    );
  }
  if (ranks > perHost && ranks % perHost !== 0) {
    throw new RangeError(
      `Cannot lay out a collective as the hosts must be full with ${perHost} ranks each: current number of ranks is ${ranks}`,
    );
  }
}
