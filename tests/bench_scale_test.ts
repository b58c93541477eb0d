import assert from "node:assert/strict";
import measured from "../bench/groups/measured.json" with { type: "json" };
import { launch } from "../bench/ranks.ts";
import { replaceSection } from "../bench/report.ts";
import {
  agreement,
  type Algorithm,
  allGather,
  byHosts,
  bytesOf,
  calibrate,
  drawing,
  fit,
  gatheredBytes,
  type Link,
  NETWORKS,
  ours,
  pytorch,
  recursiveDoubling,
  REDUCTION,
  RESNET_50,
  ring,
  tables,
  timeOf,
  tree,
  type Wire,
} from "../bench/scale.ts";

/** One message: pieces of the vector, each with the set of ranks whose contributions are folded into it. */
interface Message {
  readonly from: number;
  readonly to: number;
  readonly pieces: ReadonlyMap<number, ReadonlySet<number>>;
  /** Whether it is folded into what the receiver has, or replaces it. */
  readonly fold: boolean;
}

type Round = readonly Message[];

/** What every rank holds: for each piece of the vector, whose contributions. */
type Holdings = Map<number, ReadonlySet<number>>[];

/** Ranks that exchange messages, and the count of it. */
interface Play {
  readonly rounds: { readonly bytes: number; readonly leaving: number }[];
  readonly sent: number[];
  readonly received: number[];
  /** Bytes of the largest fold of each round. */
  readonly folds: number[];
  readonly holdings: Holdings;
  /** Sends all messages of a round at once: what they carry is what was held before it. */
  readonly round: (messages: Round) => void;
  /** A message of what a rank holds now, or of some pieces of it. */
  readonly message: (
    from: number,
    to: number,
    fold: boolean,
    pieces?: readonly number[],
  ) => Message;
}

function newPlay(
  ranks: number,
  perHost: number,
  pieceBytes: (piece: number) => number,
  start: (rank: number) => Map<number, ReadonlySet<number>>,
): Play {
  const zeros = () => Array.from({ length: ranks }, () => 0);
  const rounds: { bytes: number; leaving: number }[] = [];
  const [sent, received, folds] = [zeros(), zeros(), [] as number[]];
  const holdings = Array.from({ length: ranks }, (_, rank) => start(rank));
  const host = (rank: number) => Math.floor(rank / perHost);

  /** Counts a message and returns its bytes. */
  const deliver = ({ from, to, pieces, fold }: Message): number => {
    for (const [piece, set] of pieces) {
      const held = holdings[to].get(piece) ?? new Set();
      if (fold) assert(held.isDisjointFrom(set), "nothing is folded twice");
      holdings[to].set(piece, fold ? held.union(set) : set);
    }
    const bytes = [...pieces.keys()].reduce((sum, piece) => sum + pieceBytes(piece), 0);
    sent[from] += bytes;
    received[to] += bytes;
    return bytes;
  };

  const round = (messages: Round) => {
    assert.equal(new Set(messages.map(({ from }) => from)).size, messages.length, "one out");
    assert.equal(new Set(messages.map(({ to }) => to)).size, messages.length, "one in");
    const sizes = messages.map(deliver);
    const leaving = new Map<number, number>();
    for (const { from, to } of messages) {
      if (host(from) !== host(to)) leaving.set(host(from), (leaving.get(host(from)) ?? 0) + 1);
    }
    rounds.push({ bytes: Math.max(...sizes), leaving: Math.max(0, ...leaving.values()) });
    folds.push(Math.max(...sizes.map((bytes, i) => messages[i].fold ? bytes : 0)));
  };

  const message: Play["message"] = (from, to, fold, pieces) => {
    const held = holdings[from];
    return { from, to, fold, pieces: new Map(pieces?.map((i) => [i, held.get(i)!]) ?? held) };
  };
  return { rounds, sent, received, folds, holdings, round, message };
}

type Player = (ranks: number, wire: Wire, perHost: number) => Play;

const range = (length: number) => Array.from({ length }, (_, i) => i);
const whole = (ranks: number, wire: Wire, perHost: number) =>
  newPlay(ranks, perHost, () => bytesOf(wire), (rank) => new Map([[0, new Set([rank])]]));

/** All reduce to the first. */
function reduceUp(play: Play, members: readonly number[]): void {
  for (let distance = 1; distance < members.length; distance *= 2) {
    const senders = range(members.length).filter((i) => i % (2 * distance) === distance);
    play.round(senders.map((i) => play.message(members[i], members[i - distance], true)));
  }
}

/** The first of each group broadcasts to its group. */
function broadcastDown(play: Play, groups: readonly (readonly number[])[]): void {
  const [{ length }] = groups;
  for (let distance = 2 ** (Math.ceil(Math.log2(length)) - 1); distance >= 1; distance /= 2) {
    const senders = range(length).filter((i) => i % (2 * distance) === 0 && i + distance < length);
    play.round(
      groups.flatMap((members) =>
        senders.map((i) => play.message(members[i], members[i + distance], false))
      ),
    );
  }
}

/** Each group reduces by recursive doubling. */
function double(play: Play, groups: readonly (readonly number[])[]): void {
  const [{ length }] = groups;
  const core = 2 ** Math.floor(Math.log2(length));
  const outside = (pair: (inner: number, outer: number) => Message) => {
    if (core === length) return;
    play.round(
      groups.flatMap((members) =>
        range(length - core).map((i) => pair(members[i], members[core + i]))
      ),
    );
  };
  outside((inner, outer) => play.message(outer, inner, true));
  for (let distance = 1; distance < core; distance *= 2) {
    play.round(
      groups.flatMap((members) =>
        range(core).map((i) => play.message(members[i], members[i ^ distance], true))
      ),
    );
  }
  outside((inner, outer) => play.message(inner, outer, false));
}

const playTree: Player = (ranks, wire, perHost) => {
  const play = whole(ranks, wire, perHost);
  reduceUp(play, range(ranks));
  broadcastDown(play, [range(ranks)]);
  return play;
};

const playDoubling: Player = (ranks, wire, perHost) => {
  const play = whole(ranks, wire, perHost);
  double(play, [range(ranks)]);
  return play;
};

const playHosts: Player = (ranks, wire, perHost) => {
  const play = whole(ranks, wire, perHost);
  const size = Math.min(ranks, perHost);
  const hosts = range(ranks / size).map((host) => range(size).map((i) => host * size + i));
  double(play, hosts);
  if (hosts.length === 1) return play;
  double(play, [hosts.map(([first]) => first)]);
  broadcastDown(play, hosts);
  return play;
};

/** Pieces are runs of channels, the larger ones first; an empty piece is an empty message. */
const playRing: Player = (ranks, wire, perHost) => {
  const channelsOf = (piece: number) =>
    range(wire.channels).filter((channel) => channel % ranks === piece).length;
  const bytes = (piece: number) => {
    const channels = channelsOf(piece);
    return channels === 0 ? 0 : bytesOf({ ...wire, channels });
  };
  const all = range(ranks);
  const play = newPlay(
    ranks,
    perHost,
    bytes,
    (rank) => new Map(all.map((piece) => [piece, new Set([rank])])),
  );
  const wrap = (value: number) => (value % ranks + ranks) % ranks;
  for (const [first, fold] of [[0, true], [1, false]] as const) {
    for (let step = 0; step < ranks - 1; step++) {
      play.round(
        all.map((rank) => play.message(rank, wrap(rank + 1), fold, [wrap(rank + first - step)])),
      );
    }
  }
  return play;
};

const gathering = (ranks: number, wire: Wire, perHost: number) =>
  newPlay(ranks, perHost, () => bytesOf(wire), (rank) => new Map([[rank, new Set([rank])]]));

/** Every rank sends what it has, or the part that is still wanted, to the one `distance` below it. */
const playGather: Player = (ranks, wire, perHost) => {
  const play = gathering(ranks, wire, perHost);
  for (let distance = 1; distance < ranks; distance *= 2) {
    const count = Math.min(distance, ranks - distance);
    play.round(
      range(ranks).map((rank) => {
        const pieces = range(count).map((i) => (rank + i) % ranks);
        return play.message(rank, (rank - distance + ranks) % ranks, false, pieces);
      }),
    );
  }
  return play;
};

const REDUCTIONS: readonly (readonly [string, Algorithm, Player])[] = [
  ["tree", tree, playTree],
  ["recursive doubling", recursiveDoubling, playDoubling],
  ["ring", ring, playRing],
  ["split by hosts", byHosts(recursiveDoubling), playHosts],
];
const GATHERS: readonly (readonly [string, Algorithm, Player])[] = [
  ["all-gather", allGather, playGather],
];
const WIRES: readonly Wire[] = [
  { channels: 1, perChannel: 16, header: 8 },
  { channels: 7, perChannel: 16, header: 8 },
  { channels: 64, perChannel: 16, header: 0 },
  { channels: 64, perChannel: 8, header: 4 },
];

/** Numbers of ranks and of ranks per host: hosts are full where there are several. */
const LAYOUTS = [1, 2, 4, 8].flatMap((perHost) => [
  ...range(perHost - 1).map((i) => [i + 1, perHost] as const),
  ...range(Math.floor(40 / perHost)).map((i) => [(i + 1) * perHost, perHost] as const),
]);

for (const [name, algorithm, play] of [...REDUCTIONS, ...GATHERS]) {
  Deno.test(`the model's ${name} has the rounds, bytes and folds of real messages`, () => {
    for (const wire of WIRES) {
      for (const [ranks, perHost] of LAYOUTS) {
        if (name === "split by hosts" && ranks < perHost) continue;
        const where = `${ranks} ranks, ${perHost} per host, C = ${wire.channels}`;
        const { rounds, folded, sent, received } = algorithm(ranks, wire, perHost);
        const played = play(ranks, wire, perHost);
        const expected = rounds.flatMap(({ times, bytes, leaving }) =>
          Array.from({ length: times }, () => ({ bytes, leaving }))
        );
        assert.deepEqual(played.rounds, expected, where);
        assert.equal(Math.max(...played.sent), sent, `${where}: sent`);
        assert.equal(Math.max(...played.received), received, `${where}: received`);
        const total = played.folds.reduce((sum, bytes) => sum + bytes, 0);
        // What is gathered is folded afterwards, all but a rank's own.
        const gathered = GATHERS.some(([other]) => other === name);
        assert.equal(gathered ? (ranks - 1) * bytesOf(wire) : total, folded, `${where}: folded`);
        const everyone = new Set(range(ranks));
        for (const held of played.holdings) {
          const complete = gathered
            ? held.size === ranks
            : [...held.values()].every((set) => everyone.isSubsetOf(set));
          assert(complete, `${where}: every rank has everything`);
        }
      }
    }
  });
}

Deno.test("the model equals what is computed by hand for 2, 3, 4, 6 and 8 ranks", () => {
  const wire = { channels: 24, perChannel: 16, header: 0 }; // 384 bytes.
  const of = (algorithm: Algorithm, ranks: number) => {
    const { rounds, folded, sent } = algorithm(ranks, wire, 1);
    return [rounds.reduce((sum, { times }) => sum + times, 0), sent, folded];
  };
  assert.deepEqual([2, 3, 4, 6, 8].map((ranks) => of(tree, ranks)), [
    [2, 384, 384],
    [4, 768, 768],
    [4, 768, 768],
    [6, 1152, 1152],
    [6, 1152, 1152],
  ]);
  assert.deepEqual([2, 3, 4, 6, 8].map((ranks) => of(recursiveDoubling, ranks)), [
    [1, 384, 384],
    [3, 768, 768],
    [2, 768, 768],
    [4, 1152, 1152],
    [3, 1152, 1152],
  ]);
  assert.deepEqual([2, 3, 4, 6, 8].map((ranks) => of(ring, ranks)), [
    [2, 384, 192],
    [4, 512, 256],
    [6, 576, 288],
    [10, 640, 320],
    [14, 672, 336],
  ]);
  assert.deepEqual([2, 3, 4, 6, 8].map((ranks) => of(allGather, ranks)), [
    [1, 384, 384],
    [2, 768, 768],
    [2, 1152, 1152],
    [3, 1920, 1920],
    [3, 2688, 2688],
  ]);
});

Deno.test("the model's time is alpha per round, beta per byte over a shared port, gamma per byte folded", () => {
  const [local, network]: Link[] = [{ alpha: 1, beta: 0.5 }, { alpha: 100, beta: 0.25 }];
  const machine = { local, network, gamma: 0.125 };
  const wire = { channels: 1, perChannel: 8, header: 0 };
  // Two ranks on each of two hosts: a round within, then one in which two messages share a port.
  const seconds = timeOf(recursiveDoubling(4, wire, 2), machine);
  assert.equal(seconds, 1 + 8 * 0.5 + 100 + 2 * 8 * 0.25 + 16 * 0.125);
  assert.equal(timeOf(recursiveDoubling(1, wire, 1), machine), 0);
});

Deno.test("the model's costs grow with ranks and channels", () => {
  const machine = {
    local: { alpha: 1e-6, beta: 1e-10 },
    network: { alpha: 1e-5, beta: 1e-9 },
    gamma: 1e-10,
  };
  for (const [name, algorithm] of [...REDUCTIONS, ...GATHERS]) {
    for (const perHost of [1, 8]) {
      const cost = (ranks: number, channels: number) => {
        const schedule = algorithm(ranks, { channels, perChannel: 16, header: 8 }, perHost);
        return [timeOf(schedule, machine), schedule.sent];
      };
      for (const ranks of [8, 64, 512, 4096, 32_768]) {
        const [[time, sent], [moreTime, moreSent]] = [cost(ranks, 64), cost(8 * ranks, 64)];
        assert(moreTime > time && moreSent >= sent, `${name}, ${8 * ranks} ranks`);
        const [[wideTime], [widerTime]] = [cost(ranks, 64), cost(ranks, 4096)];
        assert(widerTime >= wideTime, `${name}, wider`);
      }
    }
  }
});

Deno.test("the model refuses ranks that are no number of full hosts", () => {
  const wire = WIRES[0];
  for (const [, algorithm] of [...REDUCTIONS, ...GATHERS]) {
    assert.throws(() => algorithm(0, wire, 1), /positive integer: current value is 0$/);
    assert.throws(() => algorithm(2.5, wire, 1), RangeError);
    assert.throws(() => algorithm(6, wire, 3), /power of two: current value is 3$/);
    assert.throws(() => algorithm(12, wire, 8), /full with 8 ranks each: .* is 12$/);
  }
});

Deno.test("a fit finds the line that the points lie on, and refuses a single size", () => {
  const points = [128, 1024, 65_536].map((bytes) => ({ bytes, seconds: 2e-6 + bytes * 3e-10 }));
  const { alpha, beta, error } = fit(points);
  assert(Math.abs(alpha / 2e-6 - 1) < 1e-9 && Math.abs(beta / 3e-10 - 1) < 1e-9 && error < 1e-9);
  const bent = points.map(({ bytes, seconds }, i) => ({
    bytes,
    seconds: seconds * [1.1, 0.9, 1][i],
  }));
  const worst = fit(bent).error;
  assert(worst > 0.01 && worst < 0.2, `${worst}`);
  assert.throws(() => fit(points.slice(1, 2)), /at least 2: current value is 1$/);
});

Deno.test("a calibration takes medians of 2 ranks and folds of one, and refuses times that do not grow", () => {
  const row = (subject: string, ranks: number, length: number, median: number) => ({
    subject,
    ranks,
    length,
    microseconds: { median, fastest: 0 },
  });
  const rows = [
    row("ours", 2, 100, 1 + 0.8),
    row("ours", 2, 1000, 1 + 8),
    row("ours", 4, 100, 99),
    row("theirs", 2, 100, 99),
    row("fold", 1, 100, 0.1 + 0.4),
    row("fold", 1, 1000, 0.1 + 4),
  ];
  const { local, gamma } = calibrate(rows, "ours", "fold");
  const near = (value: number, expected: number) => Math.abs(value / expected - 1) < 1e-9;
  assert(near(local.alpha, 1e-6) && near(local.beta, 1e-9) && near(gamma, 5e-10));
  const falling = [row("falling", 2, 100, 9), row("falling", 2, 1000, 1)];
  assert.throws(() => calibrate([...rows, ...falling], "falling", "fold"), /must be positive/);
  assert.throws(() => calibrate(rows, "nobody", "fold"), /current value is 0$/);
});

Deno.test("a ResNet-50 has 53 batch norms of 26,560 channels, and its step sends what they add up to", () => {
  assert.equal(RESNET_50.length, 53);
  const channels = RESNET_50.reduce((sum, count) => sum + count, 0);
  assert.equal(channels, 26_560); // Half of its 53,120 batch norm parameters.
  const link = { alpha: 1e-6, beta: 1e-9 };
  const machine = { local: link, network: link, gamma: 1e-9 };
  const once = 8 * (4 * channels + 53); // 2C + 1 forward, 2C backward.
  assert.equal(ours(recursiveDoubling)(8, machine, 1).sent, 3 * once);
  assert.equal(ours(recursiveDoubling)(100_000, machine, 1).sent, 17 * once);
  const gathered = 4 * (2 * channels + 53);
  assert.equal(pytorch(8, machine, 1).sent, 7 * gathered + 3 * 4 * 2 * channels);
  assert.equal(agreement(4, machine, 1).sent, 106 * 2 * 80);
  assert.equal(gatheredBytes(100_000, 2048), 1_638_800_000);
});

Deno.test("bench/scale.md has the tables and the chart that the measurements give", async () => {
  const file = (path: string) => Deno.readTextFile(new URL(`../bench/${path}`, import.meta.url));
  const page = await file("scale.md");
  assert.equal(
    replaceSection(page, "scale", tables(measured)),
    page,
    "deno task bench:scale --write",
  );
  assert.throws(() => replaceSection("no markers", "scale", ""), /they are at -1 and -1$/);
  const drawn = drawing(measured);
  assert.match(drawn, /^<svg.*<\/svg>\s*$/s);
  assert.doesNotMatch(drawn, /NaN|undefined/);
  assert.equal(await file("scale.svg"), drawn);
});

Deno.test("what the section concludes holds for the measurements", () => {
  const { gamma, local } = calibrate(
    measured.rows,
    REDUCTION,
    "combineMoments, one fold",
  );
  const machine = { local, network: NETWORKS.ethernet, gamma };
  const seconds = (algorithm: Algorithm, perHost: number, ranks = 512) =>
    ours(algorithm)(ranks, machine, perHost).seconds;
  const split = byHosts(recursiveDoubling);
  assert(seconds(recursiveDoubling, 1) < seconds(tree, 1), "doubling has the fewest rounds");
  assert(seconds(tree, 1) < seconds(ring, 1), "the ring the most");
  assert(seconds(split, 8) < seconds(recursiveDoubling, 8), "split by hosts pays");
  assert(seconds(byHosts(ring), 8) < seconds(ring, 8));
  for (const ranks of [64, 512, 4096, 32_768, 100_000]) {
    const theirs = pytorch(ranks, machine, 1);
    assert(theirs.seconds > seconds(recursiveDoubling, 1, ranks), `${ranks} ranks`);
    assert(theirs.sent > ours(recursiveDoubling)(ranks, machine, 1).sent, `${ranks} ranks`);
  }
});

Deno.test("peers are launched on this machine only, by the full name of their launcher", () => {
  const open = launch("openmpi", 4, ["program", "x"], { NAME: "value" }).join(" ");
  assert.match(open, /^mpirun\.openmpi .*--oversubscribe --bind-to none/);
  assert.match(open, /--mca oob_tcp_if_include lo --mca btl_tcp_if_include lo/);
  assert.match(open, /-x NAME=value -n 4 program x$/);
  const mpich = launch("mpich", 2, ["program"]).join(" ");
  assert.equal(mpich, "mpirun.mpich -iface lo -genv UCX_TLS self,sm -n 2 program");
});
