/**
 * What happens in a call when its turn has come and its values are there: the ranks agree, then the values move.
 *
 * Steps yield whenever they have started something: how it is waited for is their caller's business.
 */

import type { Combine } from "../../collectives.ts";
import { combineMoments } from "../../moments.ts";
import { combineError, judge, messageOf, type Saying } from "../failures.ts";
import { decodeSaying, encodeSaying, unseenError } from "../sayings.ts";
import { createAgreement, OPINION_LENGTH } from "./agreement.ts";
import { type Call, sayingOf } from "./call.ts";
import type { Channel, Steps } from "./channel.ts";
import type { Memory } from "./memory.ts";
import { combineInto, type Failure, type Operation, type Operations } from "./operations.ts";
import { isCustom, type Part } from "./parts.ts";

/** How many bytes of its text a rank may send. */
const SAYING_BYTES = 1024;

/** Behind the values that go from rank to rank: whether they are a total. */
const [INTACT, FAILED] = [0, 1];

/** Prepares the steps. */
export function createCourse(
  channel: Channel,
  operations: Operations,
  memory: Memory,
  checked: boolean,
) {
  const { rank, worldSize, library: { double, byte, sum, max } } = channel;
  const agreement = createAgreement();
  const opinion = memory.take(OPINION_LENGTH);
  const outcome = memory.take(OPINION_LENGTH);
  const sayings = new Uint8Array(new ArrayBuffer(worldSize * SAYING_BYTES));

  /** Makes sure that all ranks are at the same and none has failed; throws what all others throw. */
  function* agree(call: Call): Steps<void> {
    agreement.write(opinion, sayingOf(call), call.part?.length ?? 0);
    channel.reduce(opinion, outcome, OPINION_LENGTH, double, max);
    yield 0;
    if (agreement.holds(outcome)) return;
    const sayings = yield* tell(sayingOf(call));
    throw judge(call.number, sayings, call.failure?.cause) ?? unseenError(call.number, sayings);
  }

  /** Tells the others, and hears from all. */
  function* tell(saying: Saying): Steps<readonly Saying[]> {
    const of = (other: number) =>
      sayings.subarray(other * SAYING_BYTES, (other + 1) * SAYING_BYTES);
    encodeSaying(of(rank), saying);
    channel.gather(sayings, SAYING_BYTES, byte);
    yield 0;
    return Array.from({ length: worldSize }, (_, other) => decodeSaying(of(other)));
  }

  /** Moves the values; throws, on all ranks alike, where combining failed. */
  function* exchange(call: Call, part: Part): Steps<void> {
    const { flow } = call.request;
    const { sent, received, length } = part;
    switch (flow.kind) {
      case "reduce":
        if (part.inTurn) return yield* combineInTurn(call, part, flow.combine);
        if (isCustom(flow)) {
          return yield* combine(call, part, operations.take(flow.combine, length));
        }
        channel.reduce(sent, received, length, double, sum);
        break;
      case "gather":
        channel.gather(received, length, double);
        break;
      case "broadcast":
        channel.broadcast(received, length, flow.root);
        break;
      case "barrier":
        if (checked) return; // The agreement was one.
        channel.barrier();
    }
    yield 8 * length;
  }

  function* combine(call: Call, part: Part, operation: Operation): Steps<void> {
    const { sent, received, length } = part;
    channel.reduce(sent, received, 1, operations.vector(length + 1), operation.handle);
    yield 8 * length;
    const { failure, combine } = operation;
    operations.give(operation);
    const failed = received[length] !== 0;
    // MPI combines on several ranks. The library's own function fails on all of them or none; another's may not.
    if (!checked || combine === combineMoments) {
      return failed ? yield* blame(call, part, failure) : undefined;
    }
    if (yield* anyFailed(failed)) yield* blame(call, part, failure);
  }

  /**
   * Long arrays that a function of the program folds, by one rank after the other, so that none ever has those of all. MPI
   * would not cut them either, and gathers them on one rank instead.
   */
  function* combineInTurn(call: Call, part: Part, combine: Combine): Steps<void> {
    const { received, length } = part;
    const failure = yield* foldInTurn(part, combine);
    if (yield* anyFailed(failure !== undefined)) yield* blame(call, part, failure);
    channel.broadcast(received, length, worldSize - 1);
    yield 8 * length;
  }

  /** Receives the total of the ranks before, folds this one's values in, and hands it on; the last keeps the total of all. */
  function* foldInTurn(
    { sent: room, received: own, length }: Part,
    combine: Combine,
  ): Steps<Failure> {
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

  /** What one rank knows, all know. */
  function* anyFailed(failed: boolean): Steps<boolean> {
    opinion[0] = failed ? 1 : 0;
    channel.reduce(opinion, outcome, 1, double, max);
    yield 0;
    return outcome[0] !== 0;
  }

  /** The same reason on all ranks: that of the first that has one. */
  function* blame(call: Call, { text }: Part, failure: Failure): Steps<never> {
    const own = { failed: failure !== undefined, text: failure ? messageOf(failure.cause) : "" };
    const all = checked ? yield* tell(own) : [own];
    const reason = all.find(({ failed }) => failed)?.text ?? "on another rank";
    throw combineError(call.number, text, worldSize, reason, failure?.cause);
  }

  return { agree, exchange };
}
