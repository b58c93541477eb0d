/** A page that starts ranks in workers in every way there is, and sends home what they told. */

import { type SpawnOptions, spawnWorkers } from "../../lib/groups/workers.ts";
import type { Told } from "./rank.ts";

/** What came of each way; an error's message where it is impossible. */
export interface Report {
  readonly isolated: boolean;
  readonly ways: Readonly<Record<string, readonly Told[] | string>>;
}

const timeoutMs = 500;
const WAYS: Readonly<Record<string, SpawnOptions<number>>> = {
  auto: {},
  port: { transport: "port" },
  block: { wait: "block" },
};

const ways: Record<string, readonly Told[] | string> = {};
for (const [name, options] of Object.entries(WAYS)) {
  try {
    ways[name] = await spawnWorkers<number, Told>("./rank.js", 3, {
      ...options,
      timeoutMs,
      parameter: timeoutMs,
    });
  } catch (error) {
    ways[name] = (error as Error).message;
  }
}
const { crossOriginIsolated } = globalThis as unknown as { readonly crossOriginIsolated: boolean };
const report: Report = { isolated: crossOriginIsolated, ways };
await fetch("/report", { method: "POST", body: JSON.stringify(report) });
