/**
 * The section of bench/README.md about more machines than there are: text, tables and the chart's curves, all from the
 * model and from what was measured.
 *
 * @module
 */

import type { Measured } from "./measured.ts";
import { count, figure, paragraph, table } from "./markdown.ts";
import {
  type Algorithm,
  byHosts,
  bytesOf,
  type Link,
  type Machine,
  recursiveDoubling,
  ring,
  timeOf,
  tree,
} from "./model.ts";
import type { Curve, Panel } from "./scale_chart.ts";
import {
  agreement,
  calibrate,
  gatheredBytes,
  OUR_WIRES,
  ours,
  pytorch,
  RESNET_50,
  type Strategy,
} from "./step.ts";

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
const MOST = RANKS[RANKS.length - 1];

const STRATEGIES = {
  tree: ours(tree),
  doubling: ours(recursiveDoubling),
  ring: ours(ring),
  hosts: ours(byHosts(recursiveDoubling)),
  hostsRing: ours(byHosts(ring)),
  pytorch,
  agreement,
} as const;

/** A model that is calibrated. */
interface Calibrated {
  readonly measured: Measured;
  readonly errors: readonly [number, number];
  readonly on: (network: keyof typeof NETWORKS) => Machine;
}

function calibrated(measured: Measured): Calibrated {
  const { errors, ...host } = calibrate(measured.rows, REDUCTION, FOLDS);
  return { measured, errors, on: (network) => ({ ...host, network: NETWORKS[network] }) };
}

/**
 * Writes the section.
 *
 * @param measured what calibrates it
 * @returns Markdown as `deno fmt` leaves it, without a heading
 */
export function section(measured: Measured): string {
  const model = calibrated(measured);
  return [
    ...introduction(model),
    "### Time that synchronization adds to a step, ms",
    stepTable(model),
    paragraph(
      `All messages cross the network, each rank by a port of its own; the first line is one ` +
        `host. "checks" are the MPI group's agreement checks, which come on top of the first three.`,
    ),
    "### Bytes that the busiest rank sends in a step, MB",
    bytesTable(model),
    paragraph(
      `It receives about as many. "buffer" is what the all-gather of the widest layer, ` +
        `C = ${Math.max(...RESNET_50)}, leaves on each rank.`,
    ),
    "![Step overhead and bytes per rank against the number of ranks](groups/scale.svg)",
    `### Hosts of ${PER_HOST} ranks that share one port, Ethernet, ms`,
    hostsTable(model),
    "### What follows",
    conclusions(model).map((text) => paragraph(text, "- ")).join("\n"),
  ].join("\n\n");
}

function introduction({ measured, errors, on }: Calibrated): string[] {
  const { local, gamma } = on("ethernet");
  const { ethernet, infiniband } = NETWORKS;
  const percent = (value: number) => `${Math.round(100 * value)} %`;
  return [
    paragraph(
      `Nothing below was measured on more than one machine. A message of b bytes takes ` +
        "`alpha + beta*b` (Hockney 1994), a fold of b bytes `gamma*b` besides (Thakur, Rabenseifner, " +
        "Gropp 2005); ranks take a round together, and messages that leave a host in one round share " +
        "its port. A step is that of a ResNet-50: 53 batch norms, each with a collective forward " +
        "(2C + 1 float64) and one backward (2C), one after the other, nothing overlapped. `model.ts` " +
        "has the formulas; its test plays each algorithm with real messages and counts.",
    ),
    table([
      ["algorithm, p ranks, m bytes", "rounds", "busiest rank sends", "folded", "source"],
      [
        "binomial tree: reduce, broadcast",
        "`2*ceil(log2 p)`",
        "`ceil(log2 p)*m`",
        "`ceil(log2 p)*m`",
        "Thakur 2005; Chan 2007",
      ],
      [
        "recursive doubling, p = 2^k; other p",
        "`k`; `floor(log2 p) + 2`",
        "`k*m`; `(floor(log2 p) + 1)*m`",
        "as sent",
        "Thakur 2005",
      ],
      [
        "ring: reduce-scatter, all-gather",
        "`2*(p - 1)`",
        "`2*m*(p - 1)/p`, in whole channels",
        "`m*(p - 1)/p`",
        "Patarasuk, Yuan 2009",
      ],
      [
        "all-gather by doubling (PyTorch forward)",
        "`ceil(log2 p)`",
        "`(p - 1)*m`",
        "`(p - 1)*m`",
        "Bruck et al. 1997",
      ],
      [
        "all-gather around a ring",
        "`p - 1`",
        "`(p - 1)*m`",
        "`(p - 1)*m`",
        "Thakur 2005; Chan 2007",
      ],
    ]),
    paragraph(
      "PyTorch's SyncBatchNorm gathers 2C + 1 float32 of every rank forward and all-reduces 2C " +
        "backward; it is given the fewest rounds (doubling, both), and its folds count nothing.",
    ),
    table([
      ["constants", "alpha, us", "bandwidth 1/beta, GB/s", "from"],
      [
        "within a host",
        figure(1e6 * local.alpha),
        figure(1e-9 / local.beta),
        `measured: ${REDUCTION}, 2 ranks; off by ${percent(errors[0])} at most`,
      ],
      [
        ethernet.name,
        figure(1e6 * ethernet.alpha),
        figure(1e-9 / ethernet.beta),
        "assumed: 25 Gbit/s, 25 us",
      ],
      [
        infiniband.name,
        figure(1e6 * infiniband.alpha),
        figure(1e-9 / infiniband.beta),
        "assumed: 200 Gbit/s, 2 us",
      ],
      [
        "fold by combineMoments",
        "",
        `${figure(1e-9 / gamma)} (1/gamma)`,
        `measured; off by ${percent(errors[1])} at most`,
      ],
    ]),
    paragraph(
      `Measured on ${measured.machine}; ${measured.versions.join(", ")}; ${measured.date} ` +
        "(`groups/measured.json`). The lines are fitted by least squares of the relative errors; the " +
        "beta within a host has the sum's own fold in it. Titles of the sources stand in `groups/model.ts`.",
    ),
  ];
}

function stepTable({ on }: Calibrated): string {
  const line = (name: string, ranks: number, machine: Machine, perHost: number) => {
    const { tree, doubling, ring, pytorch, agreement } = STRATEGIES;
    return [
      name,
      count(ranks),
      ...[tree, doubling, ring, pytorch, agreement].map((strategy) =>
        milliseconds(strategy, ranks, machine, perHost)
      ),
    ];
  };
  return table([
    ["network", "ranks", "tree", "doubling", "ring", "PyTorch", "checks"],
    line("one host", PER_HOST, on("ethernet"), PER_HOST),
    ...(["ethernet", "infiniband"] as const).flatMap((network) =>
      RANKS.map((ranks) => line(NETWORKS[network].name, ranks, on(network), 1))
    ),
  ]);
}

function bytesTable({ on }: Calibrated): string {
  const { tree, doubling, ring, pytorch } = STRATEGIES;
  return table([
    ["ranks", "tree", "doubling", "ring", "PyTorch", "buffer"],
    ...RANKS.map((ranks) => [
      count(ranks),
      ...[tree, doubling, ring, pytorch].map((strategy) =>
        figure(strategy(ranks, on("ethernet"), 1).sent / 1e6)
      ),
      figure(gatheredBytes(ranks, Math.max(...RESNET_50)) / 1e6),
    ]),
  ]);
}

function hostsTable({ on }: Calibrated): string {
  const { tree, doubling, ring, hosts, hostsRing, pytorch } = STRATEGIES;
  return table([
    ["ranks", "tree", "doubling", "split, doubling", "ring", "split, ring", "PyTorch"],
    ...RANKS.filter((ranks) => ranks > PER_HOST).map((ranks) => [
      count(ranks),
      ...[tree, doubling, hosts, ring, hostsRing, pytorch].map((strategy) =>
        milliseconds(strategy, ranks, on("ethernet"), PER_HOST)
      ),
    ]),
  ]);
}

function conclusions({ on }: Calibrated): string[] {
  const { doubling, ring, hosts, hostsRing, pytorch, agreement } = STRATEGIES;
  const ethernet = on("ethernet");
  const ms = (strategy: Strategy, ranks: number, perHost: number, machine = ethernet) =>
    `${milliseconds(strategy, ranks, machine, perHost)} ms`;
  const [small, some] = [64, 512];
  const ratio = (ranks: number) =>
    figure(pytorch(ranks, ethernet, 1).sent / doubling(ranks, ethernet, 1).sent);
  const waiting = {
    ...ethernet,
    gamma: 0,
    network: { ...ethernet.network, beta: 0 },
  };
  const share = doubling(some, waiting, 1).seconds / doubling(some, ethernet, 1).seconds;
  const channels = Math.max(...RESNET_50);
  return [
    `**The all-gather does not scale, the all-reduce does.** Its bytes grow with p, ours with log2 p: ` +
    `PyTorch sends ${ratio(8)} times as many as our recursive doubling at 8 ranks, where float32 ` +
    `still makes up for it, ${ratio(small)} times at ${small}, ${ratio(MOST)} times at ` +
    `${count(MOST)}, where one layer of ${count(channels)} channels needs a buffer of ` +
    `${
      figure(gatheredBytes(MOST, channels) / 1e9)
    } GB on each rank. Of the table's numbers of ranks ` +
    `it takes longer ${slower(on)}.`,
    `**Rounds are what costs.** At ${some} ranks over Ethernet ${Math.round(100 * share)} % of ` +
    `recursive doubling is latency. So the fewest rounds win: the ring sends the fewest bytes and ` +
    `takes ${ms(ring, some, 1)} against ${ms(doubling, some, 1)}; ${
      ringPays(ethernet)
    }. Nor could ` +
    `MPI choose it for merges of moments, which it is given as one indivisible element. The checks ` +
    `add ${ms(agreement, some, 1)}; without them, what they catch goes unnoticed.`,
    `**Splitting by hosts pays where ranks share a port**, ${ms(hosts, some, PER_HOST)} against ` +
    `${ms(doubling, some, PER_HOST)} at ${some} ranks: one message leaves a host per round, not ` +
    `${PER_HOST}. It pays most for a ring (${ms(hostsRing, some, PER_HOST)} against ` +
    `${
      ms(ring, some, PER_HOST)
    }). It gains nothing where each rank has a port of its own, or by a ` +
    `binomial tree, as long as ranks are numbered host by host: the first rounds stay within hosts ` +
    `anyway.`,
    `**Sub-groups make the cost independent of p.** Synchronizing over k ranks costs what the table ` +
    `says for k, however many groups there are: ${
      ms(doubling, PER_HOST, PER_HOST)
    } within one host ` +
    `of ${PER_HOST}, ${ms(hosts, small, PER_HOST)} for ${small} ranks on ${
      small / PER_HOST
    } hosts, ` +
    `${ms(hosts, MOST, PER_HOST)} for all ${
      count(MOST)
    }. Statistics need enough samples, not all of ` +
    `them: \`group.split\` into groups that are just large enough is the first thing to try.`,
    `Left out: what Deno adds to each call, reading back from a GPU (${
      2 * RESNET_50.length
    } times a step, above), waiting for the ` +
    `slowest rank, congestion within the network, and ranks of one host that compete for its memory.`,
  ];
}

/** From how many ranks on PyTorch's way takes longer than recursive doubling. */
function slower(on: Calibrated["on"]): string {
  return (["ethernet", "infiniband"] as const).map((network) => {
    const machine = on(network);
    const { doubling, pytorch } = STRATEGIES;
    const first = RANKS.find((ranks) =>
      pytorch(ranks, machine, 1).seconds > doubling(ranks, machine, 1).seconds
    );
    const where = `over ${NETWORKS[network].name}`;
    return first === undefined ? `at none ${where}` : `from ${count(first)} on ${where}`;
  }).join(" and ");
}

/** From how many channels on a ring of 8 ranks is faster than recursive doubling. */
function ringPays(machine: Machine): string {
  const [forward] = OUR_WIRES;
  const time = (algorithm: Algorithm, channels: number) =>
    timeOf(algorithm(PER_HOST, { ...forward, channels }, 1), machine);
  const sizes = Array.from({ length: 24 }, (_, k) => 2 ** k);
  const first = sizes.find((channels) => time(ring, channels) < time(recursiveDoubling, channels));
  if (first === undefined) return `nor would it with ${PER_HOST} ranks and any number of channels`;
  const bytes = figure(bytesOf({ ...forward, channels: first }) / 1e6);
  return `it would pay with ${PER_HOST} ranks and some ${
    count(first)
  } channels (${bytes} MB) a layer`;
}

/**
 * Makes the chart's panels.
 *
 * @param measured what calibrates the model
 * @returns time in ms and bytes in MB, per step, over Ethernet
 */
export function panels(measured: Measured): readonly [Panel, Panel] {
  const { on } = calibrated(measured);
  const machine = on("ethernet");
  const ranks = [...Array.from({ length: 14 }, (_, k) => 8 * 2 ** k), MOST];
  const { tree, doubling, ring, hosts, pytorch } = STRATEGIES;
  const lines: readonly (readonly [string, string, Strategy, number])[] = [
    ["ring", "#b84f00", ring, 1],
    ["PyTorch", "#b03060", pytorch, 1],
    ["tree", "#7a7a7a", tree, 1],
    ["doubling", "#005a9c", doubling, 1],
    ["split by hosts", "#00805e", hosts, PER_HOST],
  ];
  const panel = (title: string, value: (step: ReturnType<Strategy>) => number): Panel => {
    const curves = lines.map(([label, colour, strategy, perHost]): Curve => ({
      label,
      colour,
      points: ranks.map((p) => [p, value(strategy(p, machine, perHost))]),
    }));
    const group = value(doubling(PER_HOST, machine, PER_HOST));
    const groups: Curve = {
      label: `groups of ${PER_HOST}`,
      colour: "#6a4fb3",
      dashed: true,
      points: [[ranks[0], group], [MOST, group]],
    };
    return { title, curves: [...curves, groups] };
  };
  return [
    panel("Time added to a step, ms", ({ seconds }) => 1e3 * seconds),
    panel("Sent by the busiest rank in a step, MB", ({ sent }) => sent / 1e6),
  ];
}

function milliseconds(
  strategy: Strategy,
  ranks: number,
  machine: Machine,
  perHost: number,
): string {
  return figure(1e3 * strategy(ranks, machine, perHost).seconds);
}
