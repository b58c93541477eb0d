/** A program that does not close its team, and must end all the same. */

// deno-lint-ignore-file no-console

import { openWorkshop } from "./threads_kit.ts";

const { team, numbers } = await openWorkshop({ threads: 3 });
team.run("add", [[0, 1], [256, 2], [512, 3]]);
console.log(JSON.stringify([numbers[0], numbers[32], numbers[64]]));
