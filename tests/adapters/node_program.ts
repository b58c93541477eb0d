/**
 * A program of Node, bundled with its worker ./node_rank.ts: two ranks train by TensorFlow.js's own `fit`, and one process
 * trains by plain TensorFlow.js. Prints a line of JSON with what both came to.
 */

import { spawnWorkers } from "../../lib/groups/workers.ts";
import { loadTf } from "./node_load.ts";
import { trainAlone, type Trained, type Training } from "./tfjs_ranks.ts";

/** What came of a task. */
export interface Compared {
  readonly task: Training;
  readonly alone: Trained;
  readonly ranks: readonly Trained[];
}

const FIVE = { rows: 64, epochs: 5 }; // 20 steps of 16 rows.
const TASKS: readonly Training[] = [
  { model: "mlp", optimizer: "adam", counts: [11, 5], ...FIVE, ours: true },
  { model: "nested", optimizer: "momentum", counts: [5, 11], ...FIVE },
];

const module = new URL("./node_rank.js", import.meta.url);
const ranks = await spawnWorkers<readonly Training[], readonly Trained[]>(module, 2, {
  ...{ wait: "block", parameter: TASKS },
});
const tf = await loadTf();
const all: Compared[] = [];
for (const [i, task] of TASKS.entries()) {
  all.push({ task, alone: await trainAlone(tf, task), ranks: ranks.map((own) => own[i]) });
}
console.log(JSON.stringify(all));
