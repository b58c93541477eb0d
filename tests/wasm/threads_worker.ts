/** A worker that has a team of its own, runs it, and says what came of it. */

import { openWorkshop } from "./threads_kit.ts";

const { team, numbers } = await openWorkshop();
for (let i = 0; i < 1000; i++) team.run("add", [[0, 1], [256, 2]]);
team.close();
const scope = globalThis as unknown as { readonly postMessage: (message: unknown) => void };
scope.postMessage([numbers[0], numbers[32]]);
