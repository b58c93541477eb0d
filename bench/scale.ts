/**
 * `deno task bench:scale`: what collectives cost past one machine, on paper; its page is `scale.md`.
 *
 * A message of b bytes takes alpha + beta*b (Hockney 1994, "The communication challenge for MPP", Parallel Computing
 * 20, 3), a fold of b bytes gamma*b besides (Thakur, Rabenseifner, Gropp 2005, "Optimization of collective
 * communication operations in MPICH", IJHPCA 19, 1). All ranks take a round together, and every rank sends and receives
 * at most one message in it. `tests/bench_scale_test.ts` plays each algorithm with real messages and compares.
 *
 * Ranks are numbered host by host, a power of two of them on each. The ranks of a host share its port to the network:
 * their messages in one round share its bandwidth.
 */

import { chart, type Curve, curves } from "./chart.ts";
import { commandLine } from "./command.ts";
import type { GroupRow, Measured } from "./groups/measured.ts";
import measured from "./groups/measured.json" with { type: "json" };
import { count, figure, paragraph, section, table, writeSection } from "./report.ts";
import { normsOf } from "./resnet.ts";

/** What every rank contributes: a header, then so much per channel, in bytes. Any part of it carries the header. */
export interface Wire {
  readonly channels: number;
  readonly perChannel: number;
  readonly header: number;
}

/** A way between ranks: seconds per message and per byte. */
export interface Link {
  readonly alpha: number;
  readonly beta: number;
}

/** So many rounds that are alike. */
export interface Rounds {
  readonly times: number;
  /** Bytes of the largest message. */
  readonly bytes: number;
  /** Most messages that leave one host; 0 where all stay within their hosts. */
  readonly leaving: number;
}

/** What a collective does; bytes folded on the longest path, and what the busiest sender sends, the busiest receiver gets. */
export interface Schedule {
  readonly rounds: readonly Rounds[];
  readonly folded: number;
  readonly sent: number;
  readonly received: number;
}

/** Makes the schedule of a wire over so many ranks, of which so many share a host. */
export type Algorithm = (ranks: number, wire: Wire, perHost: number) => Schedule;

/** Where ranks compute: links within hosts and between them, and seconds per byte folded. */
export interface Machine {
  readonly local: Link;
  readonly network: Link;
  readonly gamma: number;
}

export function bytesOf({ channels, perChannel, header }: Wire): number {
  return header + channels * perChannel;
}

/** Seconds of a schedule: the sum over its rounds of alpha + beta * bytes, plus gamma * bytes folded. */
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
  const up = distances.map((distance) => once(bytes, distance < perHost ? 0 : 1));
  const total = distances.length * bytes;
  return alike([...up, ...up.toReversed()], total);
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
  const outside = extra === 0 ? [] : [once(bytes, core < perHost ? 0 : Math.min(extra, perHost))];
  const inside = powersBelow(core).map((distance) => once(bytes, distance < perHost ? 0 : perHost));
  const total = (inside.length + outside.length) * bytes;
  return alike([...outside, ...inside, ...outside], total);
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
  const rounds = powersBelow(ranks).map((distance) =>
    once(
      bytes * Math.min(distance, ranks - distance),
      ranks > perHost ? Math.min(distance, perHost) : 0,
    )
  );
  return alike(rounds, (ranks - 1) * bytes);
};

/**
 * Two levels, as `group.split` makes them: all-reduce within each host by recursive doubling, among the hosts' first
 * ranks by any algorithm, then broadcast within each host by a binomial tree.
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
 * long ones. Returns the largest relative error of a point too.
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
  const fail = (what: string) => {
    throw new RangeError(`Cannot lay out a collective as ${what}`);
  };
  if (!Number.isSafeInteger(ranks) || ranks < 1) {
    fail(`the number of ranks must be a positive integer: current value is ${ranks}`);
  }
  if (!Number.isInteger(Math.log2(perHost)) || perHost < 1) {
    fail(`the ranks per host must be a power of two: current value is ${perHost}`);
  }
  if (ranks > perHost && ranks % perHost !== 0) {
    fail(`the hosts must be full with ${perHost} ranks each: current number of ranks is ${ranks}`);
  }
}

function once(bytes: number, leaving: number): Rounds {
  return { times: 1, bytes, leaving };
}

/** A schedule in which the busiest rank folds as much as it sends and receives. */
function alike(rounds: readonly Rounds[], total: number): Schedule {
  return { rounds, folded: total, sent: total, received: total };
}

/** What synchronization adds to a step: all collectives, one after the other, and bytes that the busiest rank sends. */
export interface Step {
  readonly seconds: number;
  readonly sent: number;
}

/** A way to synchronize a step over so many ranks, of which so many share a host. */
export type Strategy = (ranks: number, machine: Machine, perHost: number) => Step;

/** Float64 that the MPI group compares before each collective. */
const AGREEMENT = 10;

/** Channels of the batch norms of a ResNet-50. */
export const RESNET_50: readonly number[] = normsOf(224).map(({ channels }) => channels);

/** What this library sends: forward [count, mean C, m2 C], backward [sumDy C, sumDyXmu C], float64. */
export const OUR_WIRES = [{ perChannel: 16, header: 8 }, { perChannel: 16, header: 0 }] as const;

/** The same numbers in float32, as torch.nn.SyncBatchNorm sends them. */
const TORCH_WIRES = [{ perChannel: 8, header: 4 }, { perChannel: 8, header: 0 }] as const;

/** Synchronizes as this library does: an all-reduce forward, another backward. Sums are taken to cost what merges do. */
export function ours(algorithm: Algorithm): Strategy {
  return (ranks, machine, perHost) =>
    collect(
      OUR_WIRES.flatMap((wire) =>
        RESNET_50.map((channels) => algorithm(ranks, { ...wire, channels }, perHost))
      ),
      machine,
    );
}

/**
 * Synchronizes as PyTorch does: forward an all-gather of every rank's 2C + 1 numbers, backward an all-reduce. Both are
 * given the fewest rounds possible, and what they fold, which a GPU does, counts nothing.
 */
export const pytorch: Strategy = (ranks, machine, perHost) => {
  const [forward, backward] = TORCH_WIRES;
  const schedules = RESNET_50.flatMap((channels) => [
    allGather(ranks, { ...forward, channels }, perHost),
    recursiveDoubling(ranks, { ...backward, channels }, perHost),
  ]);
  return collect(schedules, { ...machine, gamma: 0 });
};

/** The agreement checks of the MPI group: one more all-reduce before each. */
export const agreement: Strategy = (ranks, machine, perHost) => {
  const wire: Wire = { channels: AGREEMENT, perChannel: 8, header: 0 };
  const checks = OUR_WIRES.flatMap(() => RESNET_50);
  return collect(checks.map(() => recursiveDoubling(ranks, wire, perHost)), machine);
};

/** Bytes that PyTorch's all-gather leaves on each rank for a layer. */
export function gatheredBytes(ranks: number, channels: number): number {
  const [{ perChannel, header }] = TORCH_WIRES;
  return ranks * (header + channels * perChannel);
}

/**
 * The links within a host and the cost of a fold, from measurements, with the largest relative error of each fit. Over 2
 * ranks an all-reduce is one exchange: its times over the lengths give alpha and beta, the sum's own fold included. Folds
 * of one rank give gamma; the constant part of a fold, the call, is left out.
 */
export function calibrate(
  rows: readonly GroupRow[],
  reduction: string,
  folds: string,
): { readonly local: Link; readonly gamma: number; readonly errors: readonly [number, number] } {
  const line = (subject: string, ranks: number) =>
    fit(
      rows.filter((row) => row.subject === subject && row.ranks === ranks)
        .map(({ length, microseconds }) => ({
          bytes: 8 * length,
          seconds: microseconds.median / 1e6,
        })),
    );
  const { error, ...local } = line(reduction, 2);
  const fold = line(folds, 1);
  const least = Math.min(local.alpha, local.beta, fold.beta);
  if (!(least > 0)) {
    throw new RangeError(
      `Cannot calibrate the model as alpha, beta and gamma must be positive: the least is ${least}`,
    );
  }
  return { local, gamma: fold.beta, errors: [error, fold.error] };
}

function collect(schedules: readonly Schedule[], machine: Machine): Step {
  return {
    seconds: schedules.reduce((total, schedule) => total + timeOf(schedule, machine), 0),
    sent: schedules.reduce((total, { sent }) => total + sent, 0),
  };
}

/** Whose measurements calibrate the model. */
export const REDUCTION = "C, Open MPI, non-blocking";
const FOLDS = "combineMoments, one fold";

/** Networks between hosts: assumptions in round numbers, not measurements. */
export const NETWORKS: Readonly<Record<"ethernet" | "infiniband", Link & { name: string }>> = {
  ethernet: { name: "Ethernet", alpha: 25e-6, beta: 8 / 25e9 },
  infiniband: { name: "InfiniBand", alpha: 2e-6, beta: 8 / 200e9 },
};

const RANKS = [8, 64, 512, 4096, 32_768, 100_000] as const;
const PER_HOST = 8;
const WIDEST = Math.max(...RESNET_50);

const STRATEGIES = {
  tree: ours(tree),
  doubling: ours(recursiveDoubling),
  ring: ours(ring),
  pytorch,
  agreement,
  hosts: ours(byHosts(recursiveDoubling)),
  hostsRing: ours(byHosts(ring)),
} as const;

/** The tables of the page, as `deno fmt` leaves them. */
export function tables(measured: Measured): string {
  const { machine, versions, date, rows } = measured;
  const { errors, local, gamma } = calibrate(rows, REDUCTION, FOLDS);
  const on = (network: Link): Machine => ({ local, gamma, network });
  const { tree, doubling, ring, pytorch, agreement, hosts, hostsRing } = STRATEGIES;
  const { ethernet, infiniband } = NETWORKS;
  const ms = (strategies: readonly Strategy[], ranks: number, network: Link, perHost: number) =>
    strategies.map((strategy) => figure(1e3 * strategy(ranks, on(network), perHost).seconds));
  const all = [tree, doubling, ring, pytorch, agreement];
  const link = (name: string, { alpha, beta }: Link, from: string) => [
    ...[name, figure(1e6 * alpha), figure(1e-9 / beta), from],
  ];
  const off = (error: number) => `off by ${Math.round(100 * error)} % at most`;
  return section(
    table([
      ["constants", "alpha, us", "bandwidth 1/beta, GB/s", "from"],
      link("within a host", local, `measured: ${REDUCTION}, 2 ranks; ${off(errors[0])}`),
      link(ethernet.name, ethernet, "assumed: 25 Gbit/s, 25 us"),
      link(infiniband.name, infiniband, "assumed: 200 Gbit/s, 2 us"),
      [
        "fold by combineMoments",
        "",
        `${figure(1e-9 / gamma)} (1/gamma)`,
        `measured; ${off(errors[1])}`,
      ],
    ]),
    paragraph(
      `Measured on ${machine}; ${
        versions.join(", ")
      }; ${date} (\`groups/measured.json\`). The lines are fitted by ` +
        "least squares of the relative errors; the beta within a host has the sum's own fold in it.",
    ),
    "## Time that synchronization adds to a step, ms",
    table([
      ["network", "ranks", "tree", "doubling", "ring", "PyTorch", "checks"],
      ["one host", count(PER_HOST), ...ms(all, PER_HOST, ethernet, PER_HOST)],
      ...[ethernet, infiniband].flatMap((network) =>
        RANKS.map((ranks) => [network.name, count(ranks), ...ms(all, ranks, network, 1)])
      ),
    ]),
    paragraph(
      'All messages cross the network, each rank by a port of its own; the first line is one host. "checks" are the ' +
        "MPI group's agreement checks, which come on top of the first three.",
    ),
    "## Bytes that the busiest rank sends in a step, MB",
    table([
      ["ranks", "tree", "doubling", "ring", "PyTorch", "buffer"],
      ...RANKS.map((ranks) => [
        count(ranks),
        ...[tree, doubling, ring, pytorch].map((strategy) =>
          figure(strategy(ranks, on(ethernet), 1).sent / 1e6)
        ),
        figure(gatheredBytes(ranks, WIDEST) / 1e6),
      ]),
    ]),
    paragraph(
      `It receives about as many. "buffer" is what the all-gather of the widest layer, C = ${WIDEST}, leaves on each rank.`,
    ),
    "![Step overhead and bytes per rank against the number of ranks](scale.svg)",
    `## Hosts of ${PER_HOST} ranks that share one port, Ethernet, ms`,
    table([
      ["ranks", "tree", "doubling", "split, doubling", "ring", "split, ring", "PyTorch"],
      ...RANKS.filter((ranks) => ranks > PER_HOST).map((ranks) => [
        count(ranks),
        ...ms([tree, doubling, hosts, ring, hostsRing, pytorch], ranks, ethernet, PER_HOST),
      ]),
    ]),
  );
}

/** The chart: time and bytes per step, over Ethernet. */
export function drawing(measured: Measured): string {
  const { local, gamma } = calibrate(measured.rows, REDUCTION, FOLDS);
  const machine: Machine = { local, gamma, network: NETWORKS.ethernet };
  const ranks = [...Array.from({ length: 14 }, (_, k) => 8 * 2 ** k), RANKS[RANKS.length - 1]];
  const { tree, doubling, ring, hosts, pytorch } = STRATEGIES;
  const lines: readonly (readonly [string, string, Strategy, number])[] = [
    ["ring", "#b84f00", ring, 1],
    ["PyTorch", "#b03060", pytorch, 1],
    ["tree", "#7a7a7a", tree, 1],
    ["doubling", "#005a9c", doubling, 1],
    ["split by hosts", "#00805e", hosts, PER_HOST],
  ];
  const height = 372;
  const panel = (title: string, value: (step: Step) => number) => {
    const group = value(doubling(PER_HOST, machine, PER_HOST));
    const all = lines.map(([label, colour, strategy, perHost]): Curve => ({
      ...{ label, colour },
      points: ranks.map((p) => [p, value(strategy(p, machine, perHost))]),
    }));
    const groups: Curve = {
      ...{ label: `groups of ${PER_HOST}`, colour: "#6a4fb3", dashed: true },
      points: [[ranks[0], group], [ranks[ranks.length - 1], group]],
    };
    return { title, options: curves([...all, groups], "ranks", height) };
  };
  return chart({
    title: "What synchronization costs on paper",
    subtitle:
      "ResNet-50 over Ethernet with 25 Gbit/s and 25 us per message (assumed), one port per rank that every " +
      "message crosses; within hosts of 8 ranks as measured.",
    height,
    panels: [
      panel("Time added to a step, ms", ({ seconds }) => 1e3 * seconds),
      panel("Sent by the busiest rank in a step, MB", ({ sent }) => sent / 1e6),
    ],
  });
}

/** Writes the page's tables and the chart. */
export async function writeScale(measured: Measured): Promise<void> {
  await writeSection("scale", tables(measured), new URL("scale.md", import.meta.url));
  await Deno.writeTextFile(new URL("scale.svg", import.meta.url), drawing(measured));
}

const HELP = `\
What synchronizing over more machines than there are would cost, computed from groups/measured.json.

Usage: deno task bench:scale [--write]

  --write   write the tables to bench/scale.md and draw bench/scale.svg, instead of printing them`;

if (import.meta.main) {
  if (commandLine(HELP).has("write")) await writeScale(measured);
  else console.log(tables(measured));
}
