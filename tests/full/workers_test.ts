/** Groups of workers that wait blocked, that send everything in pieces, and that have a port each. */

import { groupSuite } from "../group_suite.ts";
import { groupSuite as collectives } from "../suites/groups.ts";
import {
  blockingKit,
  blockingPiecesKit,
  piecesKit,
  portPiecesKit,
  portsKit,
} from "../workers_kit.ts";

groupSuite(blockingKit);
groupSuite(piecesKit);
groupSuite(portsKit);
collectives(portPiecesKit);
collectives(blockingPiecesKit);
