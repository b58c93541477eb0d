/**
 * Reductions in parts of the channels: each part is a submit and a readback of its own, so that what one part has to go through
 * to other ranks overlaps with the statistics of the next.
 *
 * @module
 */

import type { InParts, OverlappedOperations } from "../../lib/device.ts";
import type { WebGpuArray } from "./arrays.ts";
import { launchMoments, roomForMoments } from "./forward_operations.ts";
import { launchSums, roomForSums } from "./gradient_operations.ts";
import { reading, readMoments, readSums } from "./transfers.ts";
import { ofChannels } from "./walks.ts";
import type { Bench, Operate } from "./workbench.ts";

type A = WebGpuArray;
type Channels = readonly [from: number, to: number];

/** Parts begin at multiples of so many channels: that is what a pack of them has. */
const UNIT = 4;

/**
 * Makes the operations.
 *
 * @param operate runs each part
 * @param parts number of parts
 * @returns the operations; null for one part, which is no overlap
 */
export function overlappedOperations(
  operate: Operate,
  parts: number,
): OverlappedOperations<A> | null {
  if (parts === 1) return null;
  const inParts = (
    channels: number,
    room: (bench: Bench) => A,
    read: (bench: Bench, array: A, channels: Channels) => Promise<Float64Array<ArrayBuffer>>,
  ): InParts<A> => {
    const array = operate(room);
    const size = Math.ceil(channels / parts / UNIT) * UNIT;
    const wires = Array.from({ length: parts }, (_, part) => {
      const [from, to] = [part, part + 1].map((end) => Math.min(channels, end * size));
      return reading(operate, (bench) => read(bench, array, [from, to]));
    });
    return { array, wires };
  };
  return Object.freeze<OverlappedOperations<A>>({
    parts,
    moments: (input) =>
      inParts(
        input.shape[1],
        (bench) => roomForMoments(bench, input),
        (bench, array, channels) => {
          const slot = bench.moments(array);
          launchMoments(bench, input, slot, channels);
          return readMoments(bench, ofChannels(slot, channels));
        },
      ),
    gradientSums: (input, gradOutput, statistics, prologue) => {
      const output = prologue?.output ?? null;
      return inParts(
        input.shape[1],
        (bench) => roomForSums(bench, input, gradOutput, statistics, output),
        (bench, array, channels) => {
          const slot = bench.sums(array);
          launchSums(bench, input, gradOutput, statistics, output, slot, channels);
          return readSums(bench, ofChannels(slot, channels));
        },
      );
    },
  });
}
