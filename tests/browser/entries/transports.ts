/** Every way in which workers may reach each other and wait, on a page that is isolated and on one that is not. */

import assert from "node:assert/strict";
import { type SpawnOptions, spawnWorkers } from "../../../lib/groups/workers.ts";
import { sharesMemory } from "../../../lib/threads.ts";
import type { Seen } from "../rank.ts";

const timeoutMs = 500;
const SEEN = [4, 2, 4].map((half) => ({ total: 6, half, late: "deadline 1" }));
const spawn = (options: SpawnOptions<number>) =>
  spawnWorkers<number, Seen>(new URL("../rank.ts", import.meta.url), 3, {
    ...options,
    ...{ timeoutMs, parameter: timeoutMs },
  });

Deno.test("workers meet over shared memory where the page may, over ports elsewhere", async () => {
  assert.deepEqual(await spawn({}), SEEN);
});

Deno.test("workers meet over ports on any page", async () => {
  assert.deepEqual(await spawn({ transport: "port" }), SEEN);
});

Deno.test("workers may wait blocked where the page is isolated, elsewhere they are told", async () => {
  if (sharesMemory()) return assert.deepEqual(await spawn({ wait: "block" }), SEEN);
  await assert.rejects(spawn({ wait: "block" }), {
    message: `Cannot join the group as wait "block" needs shared memory: this seat has a port`,
  });
  await assert.rejects(spawn({ transport: "shared" }), /Cross-Origin-Opener-Policy: same-origin/);
});
