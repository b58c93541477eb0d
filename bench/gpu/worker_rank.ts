/** A rank in a worker with a GPUDevice of its own, whose steps are timed. */

import { serveRank } from "../../lib/groups/workers.ts";
import { serveSteps } from "./ranks.ts";

serveRank(serveSteps);
