/** A rank in a worker whose all-reduce is timed. */

import { serveRank } from "../../lib/groups/workers.ts";
import { loop } from "./loop.ts";

serveRank(loop);
