/** Groups of workers over shared memory, and what spawnWorkers() does over either transport. */

import "../../workers_test.ts";
import { leaveOut } from "../inside/deno.ts";

leaveOut({
  "ranks that exit their workers are noticed, whoever waits for them": "there is no Deno.exit()",
});
