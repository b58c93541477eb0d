import assert from "node:assert/strict";
import { alarmIn, awakeClock, paceOf, patienceFor } from "../lib/patience.ts";

/** Runs a body on a clock that only the body moves. */
function onClock(body: (go: (ms: number) => void) => void): void {
  const { now } = performance;
  let at = 1000;
  performance.now = () => at;
  try {
    body((ms) => at += ms);
  } finally {
    performance.now = now;
  }
}

Deno.test("awakeClock() counts what passes between looks, and of a long stop the most", () => {
  onClock((go) => {
    const awake = awakeClock(50);
    go(20);
    assert.equal(awake(), 20);
    go(60_000);
    assert.equal(awake(), 70);
    go(1);
    assert.equal(awake(), 71);
  });
});

Deno.test("a stop costs a wait no more than a sixteenth of it, and looks in time cost nothing", () => {
  for (const timeoutMs of [300, 500, 30_000, 60_000]) {
    onClock((go) => {
      const { sliceMs, leftMs } = patienceFor(timeoutMs);
      go(10 * timeoutMs);
      assert(leftMs() >= timeoutMs * 15 / 16, `${timeoutMs}`);
      const left = leftMs();
      for (let looks = 0; looks < 10; looks++) {
        go(sliceMs);
        leftMs();
      }
      assert(Math.abs(left - leftMs() - 10 * sliceMs) < 1e-6);
    });
  }
});

Deno.test("a wait that is looked at comes to its end, and one without an end does not", () => {
  onClock((go) => {
    const { sliceMs, leftMs } = patienceFor(400);
    let looks = 0;
    for (; leftMs() > 0; looks++) go(2 * sliceMs);
    assert.equal(looks, 16);
    const forEver = patienceFor(Infinity);
    go(1e9);
    assert.equal(forEver.leftMs(), Infinity);
    assert(forEver.sliceMs <= 100);
  });
  assert(paceOf(10).mostMs >= 2 && paceOf(10).mostMs <= 5);
});

Deno.test("alarmIn() goes off after its time, once, and not where it was given up", async () => {
  const start = performance.now();
  let given = 0;
  const giveUp = alarmIn(20, () => given++);
  giveUp();
  giveUp();
  await new Promise<void>((resolve) => alarmIn(60, resolve));
  assert(performance.now() - start >= 60);
  assert.equal(given, 0);
});

Deno.test("alarmIn() lets a thread that was held up hear of what came meanwhile", async () => {
  const heard: string[] = [];
  const giveUp = alarmIn(300, () => heard.push("alarm"));
  // Due long after the alarm by the clock, and right after the stop.
  setTimeout(() => heard.push("message"), 30);
  const end = performance.now() + 600;
  while (performance.now() < end);
  await new Promise((resolve) => setTimeout(resolve, 40));
  giveUp();
  assert.deepEqual(heard, ["message"]);
});
