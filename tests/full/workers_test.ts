/** Groups of workers that wait blocked, and that send everything in pieces. */

import { groupSuite } from "../group_suite.ts";
import { groupSuite as collectives } from "../suites/groups.ts";
import { blockingKit, blockingPiecesKit, piecesKit, portPiecesKit } from "../workers_kit.ts";

groupSuite(blockingKit);
groupSuite(piecesKit);
collectives(portPiecesKit);
collectives(blockingPiecesKit);
