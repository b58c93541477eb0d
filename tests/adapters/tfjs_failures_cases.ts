/** A rank that throws, stops, hangs or ends in the middle of `fit` is an error on the others, in time. */

import assert from "node:assert/strict";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import type { How, Order, Outcome } from "./tfjs_failing.ts";

/** Long enough for a worker that starts on a busy machine, which the collectives wait for. */
const DEADLINE = 4000;

interface Case {
  readonly how: How;
  /** What rank 0 is told. */
  readonly code: string;
  readonly message: RegExp;
  /** Within how many ms. */
  readonly within: number;
}

/** At once is a second, on a busy machine; a rank that says nothing is waited for. */
const AT_ONCE = 1000;

const CASES: readonly Case[] = [
  {
    how: "throws in a callback",
    code: "rankFailed",
    message: /a callback failed/,
    within: AT_ONCE,
  },
  { how: "throws in its loss", code: "rankFailed", message: /no loss/, within: AT_ONCE },
  {
    how: "stops early",
    code: "disagreement",
    message: /fit of 2 epochs has ended/,
    within: AT_ONCE,
  },
  { how: "hangs", code: "deadline", message: /rank 1/, within: DEADLINE + 1000 },
  { how: "has fewer batches", code: "disagreement", message: /rank 1 ran out/, within: DEADLINE },
  { how: "has other epochs", code: "disagreement", message: /fit of 3 epochs/, within: DEADLINE },
  {
    ...{ how: "has fewer batches of a data set", code: "disagreement" },
    ...{ message: /rank 1 ran out/, within: DEADLINE },
  },
  {
    ...{ how: "has a data set that fails", code: "rankFailed" },
    ...{ message: /no more rows/, within: DEADLINE },
  },
  { how: "is not judged", code: "disagreement", message: /evaluate/, within: DEADLINE },
  { how: "has other weights", code: "disagreement", message: /broadcastWeights/, within: DEADLINE },
  { how: "has another model", code: "disagreement", message: /batch norms/, within: DEADLINE },
];

const worker = new URL("./tfjs_failing.ts", import.meta.url);

for (const { how, code, message, within } of CASES) {
  Deno.test(`a rank that ${how} is an error on the others`, async () => {
    const times = new SharedArrayBuffer(16);
    const parameter: Order = { how, times };
    const [own] = await spawnWorkers<Order, Outcome>(worker, 2, {
      ...{ wait: "block", timeoutMs: DEADLINE, parameter },
    }).catch((error) => {
      // A rank that hangs does not hear of its own deadline; the other has.
      assert.equal(how, "hangs", String(error));
      return [null];
    });
    const [at, heard] = new Float64Array(times);
    if (own) {
      assert.equal(own.code, code, own.message);
      assert.match(own.message, message);
    }
    assert(at > 0 && heard > 0, "it misbehaved, and the other heard of it");
    assert(heard - at <= within, `after ${heard - at} ms`);
  });
}

Deno.test("a rank that closes its worker is an error on the others", async () => {
  const times = new SharedArrayBuffer(16);
  const parameter: Order = { how: "closes its worker", times };
  const run = spawnWorkers<Order, Outcome>(worker, 2, {
    ...{ wait: "block", timeoutMs: DEADLINE, parameter },
  });
  await assert.rejects(run, /closed its worker/);
  const [at, heard] = new Float64Array(times);
  assert(heard - at <= DEADLINE + 1000 && heard > 0, `after ${heard - at} ms`);
});
