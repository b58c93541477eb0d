/** What a rank brings to a call, in the memory that MPI works on, and what it gets. */

import { combineMoments, sum } from "../../moments.ts";
import { checkContribution } from "../contributions.ts";
import type { Flow, Request } from "../engine.ts";
import type { Room } from "./channel.ts";
import type { Memory } from "./memory.ts";
import type { Place } from "./communicators.ts";

/** A rank's contribution. */
export interface Part {
  readonly text: string;
  readonly length: number;
  /**
   * A copy of them: followed by a status for a function of the program, at this rank's place where all are gathered.
   * Where ranks fold in turn the room of what comes and goes, with a status.
   */
  readonly sent: Room;
  /**
   * Where MPI writes: apart from the copy for reductions, which Open MPI does faster, else the same. Where ranks fold in
   * turn the copy, which the total replaces.
   */
  readonly received: Room;
  /** Whether what MPI writes is the result itself, not room to copy it from. */
  readonly direct: boolean;
  /** Whether one rank after the other folds, not MPI. */
  readonly inTurn: boolean;
  /** Where the result goes, if the caller has said. */
  readonly place?: Float64Array;
  /** What of it is memory to be given back. */
  readonly lent: readonly Room[];
}

/** From this length on a copy costs more than memory that was never touched. */
const DIRECT_LENGTH = 16_384;
/**
 * From this length on ranks fold in turn by functions of the program. For those MPI has the arrays of all ranks on one:
 * 64 MiB, of 128 ranks, up to here. Beside moving 512 KiB from rank to rank another round or two do not count.
 */
const IN_TURN_LENGTH = 65_536;
const MOST_VALUES = 2 ** 31 - 2;

/** Checks and copies a rank's values. */
export function partOf(
  { name, detail, flow }: Request,
  values: Float64Array,
  { rank, worldSize }: Place,
  memory: Memory,
): Part {
  const { length } = checkContribution(values, name);
  if (length > MOST_VALUES) {
    throw new RangeError(
      `Cannot call ${name} as MPI counts up to ${MOST_VALUES} values: current number is ${length}`,
    );
  }
  const text = `${name} ${detail(values)}${disguise(flow)}`;
  if (flow.kind === "reduce") {
    if (isCustom(flow) && length >= IN_TURN_LENGTH) {
      // Memory that is used again is not for a function that we do not know, which may keep what it gets.
      const lent = flow.combine === combineMoments ? [memory.take(length + 1)] : [];
      const [sent = new Float64Array(length + 1)] = lent;
      const received = new Float64Array(length);
      received.set(values);
      return { text, length, sent, received, direct: true, inTurn: true, lent };
    }
    const sent = memory.take(length + 1);
    sent.set(values);
    sent[length] = 0;
    const direct = !isCustom(flow) && !flow.inPlace && length >= DIRECT_LENGTH;
    const received = direct ? new Float64Array(length) : memory.take(length + 1);
    const lent = direct ? [sent] : [sent, received];
    const place = flow.inPlace ? values : undefined;
    return { text, length, sent, received, direct, inTurn: false, place, lent };
  }
  const gathers = flow.kind === "gather";
  const sent = memory.take(gathers ? worldSize * length : length);
  sent.set(values, gathers ? rank * length : 0);
  return { text, length, sent, received: sent, direct: false, inTurn: false, lent: [sent] };
}

/** Hands out what MPI left. */
export function resultOf(
  flow: Flow,
  { received, length, direct, place }: Part,
  worldSize: number,
): readonly Float64Array[] {
  switch (flow.kind) {
    case "reduce":
      if (!place) return [direct ? received : received.slice(0, length)];
      place.set(received.subarray(0, length));
      return [place];
    case "broadcast":
      return [received.slice(0, length)];
    case "gather":
      return Array.from(
        { length: worldSize },
        (_, rank) => received.slice(rank * length, (rank + 1) * length),
      );
    case "barrier":
      return [];
  }
}

/** The library's own functions travel in ways of their own: another one by their name must not pass for them. */
function disguise(flow: Flow): string {
  if (flow.kind !== "reduce") return "";
  const namesake = [sum, combineMoments].find(({ name }) => name === flow.combine?.name);
  return namesake && namesake !== flow.combine ? " (not the library's)" : "";
}

/** Whether a function of the program, not MPI, folds the values. */
export function isCustom(flow: Flow): boolean {
  return flow.kind === "reduce" && flow.combine !== sum;
}
