/** A rank that throws, stops, hangs or ends in the middle of `fit` is an error on the others, in time. */

import assert from "node:assert/strict";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import type { How, Order, Outcome } from "./tfjs_failing.ts";

/** Long enough for a worker that starts on a busy machine, which the collectives wait for. */
const DEADLINE = 4000;
/** At once is a second, on a busy machine; a rank that says nothing is waited for. */
const AT_ONCE = 1000;
const IN_TIME = DEADLINE + 1000;

interface Case {
  readonly how: How;
  /** What rank 0 is told. */
  readonly code: string;
  readonly message: RegExp;
  /** Within how many ms. */
  readonly within: number;
}

const THROWN: readonly Case[] = [
  {
    ...{ how: "throws in a callback", code: "rankFailed" },
    ...{ message: /a callback failed/, within: AT_ONCE },
  },
  { how: "throws in its loss", code: "rankFailed", message: /no loss/, within: AT_ONCE },
];

const CASES: readonly Case[] = [
  ...THROWN,
  {
    ...{ how: "stops early", code: "disagreement" },
    ...{ message: /fit of 2 epochs has ended/, within: AT_ONCE },
  },
  { how: "has fewer batches", code: "disagreement", message: /rank 1 ran out/, within: IN_TIME },
  { how: "has other epochs", code: "disagreement", message: /fit of 3 epochs/, within: IN_TIME },
  {
    ...{ how: "has fewer batches of a data set", code: "disagreement" },
    ...{ message: /rank 1 ran out/, within: IN_TIME },
  },
  {
    ...{ how: "has a data set that fails", code: "rankFailed" },
    ...{ message: /no more rows/, within: IN_TIME },
  },
  { how: "is not judged", code: "disagreement", message: /evaluate/, within: IN_TIME },
  { how: "has other weights", code: "disagreement", message: /broadcastWeights/, within: IN_TIME },
  { how: "has another model", code: "disagreement", message: /batch norms/, within: IN_TIME },
];

const worker = new URL("./tfjs_failing.ts", import.meta.url);

/** Lets two ranks train as often as the last one is to misbehave; when it did and when the first one heard of it. */
function misbehave(backend: Order["backend"], hows: readonly How[]) {
  const times = new SharedArrayBuffer(16 * hows.length);
  const parameter: Order = { backend, hows, times };
  const ended = spawnWorkers<Order, readonly Outcome[]>(worker, 2, {
    ...{ wait: "block", timeoutMs: DEADLINE, parameter },
  });
  const within = (i: number, ms: number) => {
    const [at, heard] = new Float64Array(times, 16 * i, 2);
    assert(at > 0 && heard > 0, `it ${hows[i]}, and the other heard of it`);
    assert(heard - at <= ms, `${hows[i]}: after ${heard - at} ms`);
  };
  return { ended, within };
}

for (const [backend, cases] of [["cpu", CASES], ["wasm", THROWN]] as const) {
  Deno.test(`on ${backend}: a rank that fails or differs is an error on the others, and the group goes on`, async (t) => {
    const { ended, within: heard } = misbehave(backend, cases.map(({ how }) => how));
    const [first] = await ended;
    for (const [i, { how, code, message, within }] of cases.entries()) {
      await t.step(how, () => {
        assert.equal(first[i].code, code, first[i].message);
        assert.match(first[i].message, message);
        heard(i, within);
      });
    }
  });
}

for (const backend of ["cpu", "wasm"] as const) {
  Deno.test(`on ${backend}: a rank that closes its worker is an error on the others`, async () => {
    const { ended, within } = misbehave(backend, ["closes its worker"]);
    await assert.rejects(ended, /closed its worker/);
    within(0, IN_TIME);
  });
}

Deno.test("a rank that hangs is an error on the others at the deadline", async () => {
  const { ended, within } = misbehave("wasm", ["hangs"]);
  // Whoever hangs does not hear of its own deadline: the workers end without it.
  await assert.rejects(ended, /did not arrive|rank 1/);
  within(0, IN_TIME);
});
