/**
 * Long arrays that a function of the program folds: by one rank after the other, so that none ever has those of all. MPI
 * would not cut them either, and gathers them on one rank instead.
 */

import type { Combine } from "../../collectives.ts";
import type { Channel, Steps } from "./channel.ts";
import { combineInto, type Failure } from "./operations.ts";
import type { Part } from "./parts.ts";

/** Behind the values that travel: whether they are a total. */
const [INTACT, FAILED] = [0, 1];

/** Receives the total of the ranks before, folds this one's values in, and hands it on; the last keeps the total of all. */
export function* foldInTurn(
  channel: Channel,
  combine: Combine,
  { sent: room, received: own, length }: Part,
): Steps<Failure> {
  const { rank, worldSize } = channel;
  let failure: Failure;
  if (rank === 0) {
    room.set(own);
    room[length] = INTACT;
  } else {
    channel.receive(room, length + 1, rank - 1);
    yield 8 * length;
    if (room[length] === INTACT) {
      const total = room.subarray(0, length);
      failure = combineInto(total, own, total, combine);
    }
    if (failure) room[length] = FAILED;
  }
  if (rank < worldSize - 1) {
    channel.send(room, length + 1, rank + 1);
    yield 8 * length;
  } else {
    own.set(room.subarray(0, length));
  }
  return failure;
}
