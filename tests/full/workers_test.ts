/** Groups of workers that wait blocked, and that send everything in pieces. */

import { groupSuite } from "../group_suite.ts";
import { blockingKit, piecesKit } from "../workers_kit.ts";

groupSuite(blockingKit);
groupSuite(piecesKit);
