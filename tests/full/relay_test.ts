import assert from "node:assert/strict";
import { joinRelay } from "../../examples/relay_link.ts";
import { serveRelay } from "../../examples/relay.ts";
import {
  batchNormForward,
  CollectiveError,
  fromAllGather,
  initBatchNorm,
  referenceDevice,
  runRanks,
  stateToHost,
  tensor,
} from "../../mod.ts";
import type { GroupKit } from "../kit.ts";
import { groupSuite } from "../group_suite.ts";
import { normalArray } from "../random.ts";
import { fullTests } from "../tier.ts";

const test = fullTests("relay");

/** Ranks in this thread that reach each other by WebSockets on loopback alone. */
const relayKit: GroupKit = {
  name: "relay",
  tier: "full",
  reduceOnly: true,
  run: async (worldSize, { body }, parameter, options) => {
    await using relay = serveRelay(worldSize, options);
    return await runRanks(worldSize, async (group) => {
      const { rank } = group;
      await using link = await joinRelay(relay.url, { rank, worldSize });
      const allReduce = fromAllGather(link.allGather);
      return await body(Object.freeze({ ...group, allReduce }), parameter);
    }, options);
  },
};

groupSuite(relayKit);

const one = Float64Array.of(1);

/** What a call through a relay rejects with. */
async function failureOf(promise: Promise<unknown>): Promise<CollectiveError> {
  const [result] = await Promise.allSettled([promise]);
  assert(result.status === "rejected" && result.reason instanceof CollectiveError);
  return result.reason;
}

test("a rank that leaves a relay ends the run for all, by its number", async () => {
  await using relay = serveRelay(3);
  const join = (rank: number) => joinRelay(relay.url, { rank, worldSize: 3 });
  await using first = await join(0);
  await using second = await join(2);
  const calls = [first, second].map(({ allGather }) => failureOf(allGather(one)));
  await (await join(1))[Symbol.asyncDispose]();
  for (const { code, ranks, message } of await Promise.all(calls)) {
    assert.deepEqual([code, ranks], ["rankFailed", [1]]);
    assert.match(message, /^Cannot go on with the relay as rank 1 has left$/);
  }
  assert.match((await failureOf(first.allGather(one))).message, /rank 1 has left/);
});

test("a relay has one place for each rank, and none for others", async () => {
  await using relay = serveRelay(2);
  await using _first = await joinRelay(relay.url, { rank: 0, worldSize: 2 });
  for (const rank of [0, 2, -1, NaN, 0.5]) {
    const { code, message } = await failureOf(joinRelay(relay.url, { rank, worldSize: 2 }));
    assert.equal(code, "rankFailed");
    assert.match(message, /is gone, or its place was not free$/);
  }
});

test("ranks of a relay notice that it is of another size, closed, or silent", async () => {
  await using alone = serveRelay(1);
  await using wrong = await joinRelay(alone.url, { rank: 0, worldSize: 2 });
  const { code, message } = await failureOf(wrong.allGather(one));
  assert.equal(code, "disagreement");
  assert.match(message, /the relay is not one of 2 ranks$/);

  const closing = serveRelay(2);
  await using left = await joinRelay(closing.url, { rank: 0, worldSize: 2 });
  const call = failureOf(left.allGather(one));
  await closing[Symbol.asyncDispose]();
  assert.match((await call).message, /as the relay was closed$/);

  const silent = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) => Deno.upgradeWebSocket(request).response,
  );
  const url = `ws://127.0.0.1:${silent.addr.port}`;
  await using waiting = await joinRelay(url, { rank: 0, worldSize: 2, timeoutMs: 50 });
  const late = await failureOf(waiting.allGather(one));
  assert.equal(late.code, "deadline");
  assert.match(late.message, /as the relay did not answer within 50 ms$/);
  await silent.shutdown();
});

test("ranks that send arrays of other lengths to a relay all get the error", async () => {
  await using relay = serveRelay(2);
  const failures = await Promise.all([0, 1].map(async (rank) => {
    await using link = await joinRelay(relay.url, { rank, worldSize: 2 });
    return await failureOf(link.allGather(new Float64Array(1 + rank)));
  }));
  for (const { code, ranks, message } of failures) {
    assert.deepEqual([code, ranks], ["disagreement", [0, 1]]);
    assert.match(message, /as ranks sent arrays of other lengths$/);
  }
});

const program = (name: string, ...args: string[]) =>
  new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", "--allow-net=127.0.0.1", name, ...args],
    cwd: new URL("../../", import.meta.url),
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  });

test("a relay and its ranks are processes, and train what one process trains", async () => {
  const flags = ["--ranks", "2", "--hostname", "127.0.0.1", "--port", "0"];
  const relay = program("examples/relay.ts", ...flags).spawn();
  try {
    const reader = relay.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const { value = "" } = await reader.read();
    const [, url] = /^2 ranks may join at (ws:\S+)\n$/.exec(value) ?? [];
    assert(url, value);
    const outputs = await Promise.all(["0", "1"].map(async (rank) => {
      const { code, stdout, stderr } = await program("tests/relay_rank.ts", url, rank, "2")
        .output();
      assert.equal(code, 0, new TextDecoder().decode(stderr));
      return JSON.parse(new TextDecoder().decode(stdout));
    }));
    const device = referenceDevice();
    const batch = [...normalArray(3, 0, 5), ...normalArray(6, 1, 5)];
    const whole = tensor(device, batch, [3, 3]);
    const { state } = batchNormForward(initBatchNorm(device, 3), whole, { device });
    const { runningMean, runningVar } = await stateToHost(device, state);
    assert.deepEqual(outputs[0], outputs[1]);
    const expected = [...runningMean ?? [], ...runningVar ?? []];
    // Merged in float64 in another order, then rounded to float32 once: one unit in the last place at most.
    expected.forEach((value, i) =>
      assert(Math.abs(outputs[0][i] - value) <= Math.abs(value) * 2 ** -23, `${i}: ${value}`)
    );
    await reader.cancel();
  } finally {
    relay.kill();
    await relay.stderr.cancel();
    await relay.status;
  }
});

test("the relay's command line says what is wrong with it, by exit code 2 and a sentence", async () => {
  const wrong: [string[], RegExp][] = [
    [[], /^Cannot relay as --ranks must tell how many there are: it has none/],
    [["--ranks", "0"], /--ranks must be an integer from 1 to 9999: current value is "0"/],
    [
      ["--ranks", "2", "--port", "-1"],
      /--port must be an integer from 0 to 65535: current value is "-1"/,
    ],
    [["--ranks", "2", "--rank", "1"], /--rank is none of --ranks, --hostname, --port, --help/],
  ];
  for (const [args, text] of wrong) {
    const { code, stderr } = await program("examples/relay.ts", ...args).output();
    const said = new TextDecoder().decode(stderr);
    assert.equal(code, 2, said);
    assert.match(said, text);
    assert.equal(said.trim().split("\n").length, 1, said);
  }
  const { code, stdout } = await program("examples/relay.ts", "--help").output();
  assert.equal(code, 0);
  assert.match(new TextDecoder().decode(stdout), /Usage: deno run --allow-net examples\/relay\.ts/);
});
