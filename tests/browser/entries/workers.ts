/** Groups of workers over shared memory, and what spawnWorkers() does over either transport. */

import "../../workers_test.ts";
import { leaveOut } from "../inside/deno.ts";

const PROGRAM = "it runs programs, and looks at their memory";
leaveOut({
  "no rank holds the long arrays of all, over shared": PROGRAM,
  "no rank holds the long arrays of all, over port": PROGRAM,
  "ranks that exit their workers are noticed, whoever waits for them": "there is no Deno.exit()",
});
