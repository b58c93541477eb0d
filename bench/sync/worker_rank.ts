/** A rank in a worker whose steps are timed. */

import { serveRank } from "../../lib/groups/workers.ts";
import { timeSteps } from "./step.ts";

serveRank(timeSteps);
