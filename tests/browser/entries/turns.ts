/** A page on which replicas train in its own thread, and which stays responsive. */

import assert from "node:assert/strict";
import { wasmDevice } from "../../../kernels/wasm_device.ts";
import { shortTurn } from "../../../lib/groups/turns.ts";
import {
  initBatchNorm,
  region,
  runRanks,
  syncBatchNormBackward,
  syncBatchNormForward,
  tensor,
} from "../../../mod.ts";

/** The longest time that a page may stand still unnoticed, in ms. */
const FELT_MS = 50;

/** Trains two replicas for a while; resolves to the longest time in which no timer came. */
async function longestFreeze(): Promise<number> {
  await using device = await wasmDevice();
  let [last, longest] = [performance.now(), 0];
  const look = (): void => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  };
  const timer = setInterval(look, 1);
  try {
    await runRanks(2, async (group) => {
      let state = initBatchNorm(device, 16);
      const x = tensor(device, new Float32Array(2 ** 16).fill(0.5), [4, 16, 32, 32]);
      const end = performance.now() + 150;
      for (;;) {
        // All go by the clock of one: who ends alone leaves the other waiting.
        const [leftMs] = await group.broadcast(Float64Array.of(end - performance.now()), 0);
        if (leftMs <= 0) break;
        state = await region(device, async (scope) => {
          const effects = { device: scope, group };
          const { output, saved, state: next } = await syncBatchNormForward(state, x, effects);
          await syncBatchNormBackward(saved, output, effects);
          return next;
        });
      }
    });
    look();
  } finally {
    clearInterval(timer);
  }
  return longest;
}

/** Computes for a while, gives a turn, and so on; resolves to how many of the turns no timer came in. */
async function turnsWithoutTimer(turns: number): Promise<number> {
  let [came, without] = [false, 0];
  const timer = setInterval(() => came = true, 1);
  for (let i = 0; i < turns; i++) {
    const end = performance.now() + 10;
    while (performance.now() < end);
    came = false;
    await shortTurn();
    if (!came) without++;
  }
  clearInterval(timer);
  return without;
}

Deno.test("a timer that is due comes with the next turn, not with the one after it", async () => {
  // The thread that wakes timers may be held up too; a turn too short misses about every other timer.
  const without: number[] = [];
  while (without.length < 40 && !without.includes(0)) without.push(await turnsWithoutTimer(8));
  assert(without.includes(0), `${without} of 8 turns`);
});

Deno.test("replicas that train in a page's own thread leave it responsive", async () => {
  // The least of several, as other programs of the machine may hold up a page too.
  const freezes: number[] = [];
  while (freezes.length < 40 && !freezes.some((ms) => ms < FELT_MS)) {
    freezes.push(await longestFreeze());
  }
  assert(freezes.some((ms) => ms < FELT_MS), `${freezes} ms`);
});
