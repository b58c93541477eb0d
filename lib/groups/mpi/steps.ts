/**
 * What happens in a call when its turn has come and its values are there: the ranks agree, then the values move.
 *
 * Each step is undefined where it came to its end at once: a promise would put off the next one to another turn.
 *
 * @module
 */

import { CollectiveError } from "../../errors.ts";
import { combineMoments } from "../../moments.ts";
import { combineError, judge, messageOf, type Saying } from "../failures.ts";
import {
  createAgreement,
  decodeSayings,
  encodeSaying,
  OPINION_LENGTH,
  SAYING_BYTES,
} from "./agreement.ts";
import { type Call, sayingOf } from "./call.ts";
import type { Channel } from "./channel.ts";
import type { Memory } from "./memory.ts";
import type { Operation, Operations } from "./operations.ts";
import { isCustom, type Part } from "./parts.ts";

/** Sees what was started last on the channel through, of so many bytes; undefined where it is complete already. */
export type Complete = (bytes: number) => Promise<void> | undefined;

/** The steps of calls on one communicator. */
export interface Steps {
  /** Makes sure that all ranks are at the same and none has failed; rejects with what all others reject with. */
  readonly agree: (call: Call) => Promise<void> | undefined;
  /** Moves the values; rejects, on all ranks alike, where combining failed. */
  readonly exchange: (call: Call, part: Part) => Promise<void> | undefined;
}

/**
 * Prepares the steps.
 *
 * @param channel the communicator
 * @param complete how to wait on it
 * @param operations functions of the program
 * @param memory where to take room from
 * @param checked whether the ranks agree
 * @returns the steps
 */
export function createSteps(
  channel: Channel,
  complete: Complete,
  operations: Operations,
  memory: Memory,
  checked: boolean,
): Steps {
  const { rank, worldSize, library: { double, byte, sum, max } } = channel;
  const agreement = createAgreement();
  const opinion = memory.take(OPINION_LENGTH);
  const outcome = memory.take(OPINION_LENGTH);
  const sayings = new Uint8Array(new ArrayBuffer(worldSize * SAYING_BYTES));

  function agree(call: Call): Promise<void> | undefined {
    agreement.write(opinion, sayingOf(call), call.part?.length ?? 0);
    channel.reduce(opinion, outcome, OPINION_LENGTH, double, max);
    const pending = complete(0);
    if (!pending) return agreement.holds(outcome) ? undefined : disagree(call);
    return pending.then(() => agreement.holds(outcome) ? undefined : disagree(call));
  }

  async function disagree(call: Call): Promise<never> {
    const sayings = await tell(sayingOf(call));
    throw judge(call.number, sayings, call.failure?.cause) ?? new CollectiveError(
      `Cannot complete call ${call.number} as the ranks disagree in characters that do not show: ` +
        `rank 0 called ${sayings[0].text}`,
      "disagreement",
      [...sayings.keys()],
    );
  }

  /** Tells the others, and hears from all. */
  async function tell(saying: Saying): Promise<readonly Saying[]> {
    const own = sayings.subarray(rank * SAYING_BYTES, (rank + 1) * SAYING_BYTES);
    encodeSaying(own.fill(0), saying);
    channel.gather(sayings, SAYING_BYTES, byte);
    const pending = complete(0);
    if (pending) await pending;
    return decodeSayings(sayings);
  }

  function exchange(call: Call, part: Part): Promise<void> | undefined {
    const { flow } = call.request;
    const { sent, received, length } = part;
    switch (flow.kind) {
      case "reduce":
        if (isCustom(flow)) return combine(call, part, operations.take(flow.combine, length));
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
    return complete(8 * length);
  }

  function combine(call: Call, part: Part, operation: Operation): Promise<void> | undefined {
    const { sent, received, length } = part;
    channel.reduce(sent, received, 1, operations.vector(length + 1), operation.handle);
    const pending = complete(8 * length);
    if (pending) return pending.then(() => combined(call, part, operation));
    return combined(call, part, operation);
  }

  /** MPI combines on several ranks. The library's own function fails on all of them or none; another's may not. */
  function combined(call: Call, part: Part, operation: Operation): Promise<void> | undefined {
    const { failure, combine } = operation;
    operations.give(operation);
    const failed = part.received[part.length] !== 0;
    if (checked && combine !== combineMoments) return compare(call, part, failed, failure);
    return failed ? blame(call, part, failure) : undefined;
  }

  async function compare(call: Call, part: Part, failed: boolean, failure: Operation["failure"]) {
    opinion[0] = failed ? 1 : 0;
    channel.reduce(opinion, outcome, 1, double, max);
    const pending = complete(0);
    if (pending) await pending;
    if (outcome[0] !== 0) await blame(call, part, failure);
  }

  /** The same reason on all ranks: that of the first that has one. */
  async function blame(call: Call, { text }: Part, failure: Operation["failure"]): Promise<never> {
    const own = { failed: failure !== undefined, text: failure ? messageOf(failure.cause) : "" };
    const all = checked ? await tell(own) : [own];
    const reason = all.find(({ failed }) => failed)?.text ?? "on another rank";
    throw combineError(call.number, text, worldSize, reason, failure?.cause);
  }

  return { agree, exchange };
}
