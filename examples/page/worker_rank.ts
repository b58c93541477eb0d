/**
 * The module of a worker that is one rank of the page's examples.
 *
 * @module
 */

import { serveRank } from "../../lib/groups/workers.ts";
import { page } from "./page.ts";

serveRank(page);
