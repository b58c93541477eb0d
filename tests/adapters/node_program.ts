/**
 * A program of Node, bundled with its worker ./node_rank.ts: two ranks train by TensorFlow.js's own `fit`. Prints a line of JSON
 * with what they came to.
 */

import process from "node:process";
import { spawnWorkers } from "../../lib/groups/workers.ts";
import type { Trained } from "./tfjs_ranks.ts";
import type { Order } from "./tfjs_worker.ts";

const orders: readonly Order[] = JSON.parse(process.argv[2]);
const module = new URL("./node_rank.js", import.meta.url);
const ranks = await spawnWorkers<readonly Order[], readonly (readonly Trained[])[]>(module, 2, {
  ...{ wait: "block", parameter: orders },
});
console.log(JSON.stringify(ranks));
