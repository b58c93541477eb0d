/**
 * The module of a worker that is one rank of the examples.
 *
 * @module
 */

import { serveRank } from "../../lib/groups/workers.ts";
import { bothExamples } from "./both.ts";

serveRank(bothExamples);
