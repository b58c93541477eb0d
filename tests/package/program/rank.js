/** A rank, in a worker of Node or of a browser. */

import { serveRank } from "@syncbn/syncbn/workers";
import { train } from "./train.js";

serveRank((group, parts) => train(group, parts[group.rank]));
