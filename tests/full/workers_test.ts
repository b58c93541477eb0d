/** Groups of workers that wait blocked, that send everything in pieces, and that have a port each. */

import { groupSuite } from "../group_suite.ts";
import { groupSuite as collectives } from "../suites/groups.ts";
import { inTier } from "../tier.ts";
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
for (const kit of [portPiecesKit, blockingPiecesKit]) inTier(kit, collectives);
