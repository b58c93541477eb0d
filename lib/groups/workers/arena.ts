/**
 * The shared memory of a group of workers: one growing buffer, cut into areas, one for the world and one for each
 * sub-group. All that is in it is found by offset, so that a buffer is all a worker needs to be handed.
 *
 * There is no lock, which a rank could be stopped or ended with: what must be one rank's alone is claimed by changing one
 * word, and only whoever changed it goes on.
 */

import { display } from "../failures.ts";
import {
  type Area,
  bytesOf,
  GROUP,
  type Head,
  openArea,
  openHead,
  RANK,
  roundOf,
  ROUNDS,
} from "./area.ts";

/** Words of the whole memory, in 64 bytes: where the free part begins; the last area, each knows the one before it. */
const MEMORY = { free: 1, last: 2 } as const;
const MEMORY_BYTES = 64;
/** Where the world's area begins. */
export const WORLD = MEMORY_BYTES;
/** What ranks of a sub-group can bring at once: enough for the statistics of 4,095 channels. */
const PART_CAPACITY = 8192;
/** Address space for all sub-groups of a world, where buffers can grow. */
const SPACE_BYTES = 2 ** 30;

/**
 * Makes the memory of a world.
 *
 * It takes no more of the machine than what is used: its pages come when they are written to. Where buffers cannot
 * grow, it has room for sixteen sub-groups at a time that are as large as the world.
 */
export function createMemory(worldSize: number, capacity: number): SharedArrayBuffer {
  const least = MEMORY_BYTES + bytesOf(worldSize, capacity);
  const room = 16 * bytesOf(worldSize, partCapacity(capacity));
  const buffer = growable(least, least + Math.max(room, SPACE_BYTES)) ??
    growable(least, least + room) ?? new SharedArrayBuffer(least + room);
  memoryOf(buffer)[MEMORY.free] = MEMORY_BYTES / 64;
  allocate(buffer, Array.from({ length: worldSize }, (_, rank) => rank), capacity);
  return buffer;
}

/** Says what ranks of a sub-group can bring at once. */
export function partCapacity(capacity: number): number {
  return Math.min(capacity, PART_CAPACITY);
}

/** Finds room for a group: that of one which nobody has a handle on any more, or new room. */
export function allocate(
  buffer: SharedArrayBuffer,
  members: readonly number[],
  capacity: number,
): number {
  const again = claimUnused(buffer, members.length, capacity);
  const offset = again || claimNew(buffer, bytesOf(members.length, capacity));
  if (offset === 0) return 0;
  if (again === 0) {
    const group = new Int32Array(buffer, offset, 16);
    group[GROUP.worldSize] = members.length;
    group[GROUP.capacity] = capacity;
    // One more for the world, so that its area never serves another group.
    group[GROUP.handles] = members.length + (offset === WORLD ? 1 : 0);
  }
  furnish(openHead(buffer, offset), members);
  if (again === 0) enlist(buffer, offset);
  // Whoever ends from now on finds the area; who had ended before is found here.
  const area = openHead(buffer, offset);
  const world = openHead(buffer, WORLD);
  members.forEach((inWorld, rank) => {
    if (hasEnded(world, inWorld)) end(area, rank);
  });
  return offset;
}

/**
 * Lists all areas that a rank of the world is in. What is made ready meanwhile is not among them: who makes it looks for
 * ranks that have ended once it is.
 */
export function areasOf(
  buffer: SharedArrayBuffer,
  inWorld: number,
): readonly { readonly area: Area; readonly rank: number }[] {
  const found: { readonly area: Area; readonly rank: number }[] = [];
  for (let at = Atomics.load(memoryOf(buffer), MEMORY.last); at > 0;) {
    const head = openHead(buffer, 64 * at);
    const rank = head.ranks.findIndex((words) => Atomics.load(words, RANK.inWorld) === inWorld);
    if (rank >= 0 && head.tenancy % 2 === 0) {
      const area = openArea(buffer, 64 * at);
      if (area.tenancy === head.tenancy && isTenant(area)) found.push({ area, rank });
    }
    at = head.group[GROUP.before];
  }
  return found;
}

/** Whether an area still serves the group that a view of it was made for. */
export function isTenant({ group, tenancy }: Head): boolean {
  return Atomics.load(group, GROUP.tenancy) === tenancy;
}

/** Whether a rank of an area will make no further call. */
export function hasEnded({ ranks, tenancy }: Head, rank: number): boolean {
  return Atomics.load(ranks[rank], RANK.ended) === tenancy;
}

/** Says so. Should the area have come to another group meanwhile, it says nothing. */
export function end({ ranks, tenancy }: Head, rank: number): void {
  Atomics.store(ranks[rank], RANK.ended, tenancy);
}

/** Takes a rank's seat in the world, once. */
export function claimSeat(buffer: SharedArrayBuffer, rank: number): boolean {
  return Atomics.compareExchange(openHead(buffer, WORLD).ranks[rank], RANK.taken, 0, 1) === 0;
}

/** Makes an area ready for a group. It is claimed by this rank, and no other writes to it but who looks for a rank. */
function furnish({ group, ranks, claims, tenancy }: Head, members: readonly number[]): void {
  const next = tenancy + 2;
  Atomics.store(group, GROUP.tenancy, tenancy + 1);
  const { round, reason } = roundOf(Atomics.load(group, GROUP.round));
  if (reason >= 0) Atomics.store(claims, reason, 0);
  // Another number than before: who is late with breaking the group that was here must not break this one.
  const first = tenancy === 0 ? 0 : (round + 2) % ROUNDS;
  members.forEach((inWorld, rank) => {
    ranks[rank].fill(0);
    ranks[rank][RANK.arrivals] = first;
    Atomics.store(ranks[rank], RANK.inWorld, inWorld);
  });
  for (const word of [GROUP.arrived, GROUP.verdict, GROUP.combining]) group[word] = 0;
  Atomics.store(group, GROUP.round, first);
  Atomics.store(group, GROUP.tenancy, next);
}

/** An area whose group nobody has a handle on any more. */
function claimUnused(buffer: SharedArrayBuffer, worldSize: number, capacity: number): number {
  const words = new Int32Array(buffer); // One view for all: there may be thousands of areas.
  for (let at = Atomics.load(words, MEMORY.last); at > 0;) {
    const group = 16 * at;
    const fits = words[group + GROUP.worldSize] === worldSize &&
      words[group + GROUP.capacity] === capacity;
    const handles = group + GROUP.handles;
    if (fits && Atomics.compareExchange(words, handles, 0, worldSize) === 0) return 64 * at;
    at = words[group + GROUP.before];
  }
  return 0;
}

function claimNew(buffer: SharedArrayBuffer, bytes: number): number {
  const memory = memoryOf(buffer);
  for (;;) {
    const free = Atomics.load(memory, MEMORY.free);
    if (!reach(buffer, 64 * free + bytes)) return 0;
    const taken = Atomics.compareExchange(memory, MEMORY.free, free, free + bytes / 64) === free;
    if (taken) return 64 * free;
  }
}

function enlist(buffer: SharedArrayBuffer, offset: number): void {
  const memory = memoryOf(buffer);
  const group = new Int32Array(buffer, offset, 16);
  do group[GROUP.before] = Atomics.load(memory, MEMORY.last); while (
    Atomics.compareExchange(memory, MEMORY.last, group[GROUP.before], offset / 64) !==
      group[GROUP.before]
  );
}

function memoryOf(buffer: SharedArrayBuffer): Int32Array<SharedArrayBuffer> {
  return new Int32Array(buffer, 0, MEMORY_BYTES / 4);
}

function growable(bytes: number, maxByteLength: number): SharedArrayBuffer | null {
  try {
    const buffer = new SharedArrayBuffer(bytes, { maxByteLength });
    return buffer.growable ? buffer : null;
  } catch (error) {
    if (error instanceof RangeError) return null; // So much address space is not to be had.
    throw error;
  }
}

/** Grows the memory where it must be larger. */
function reach(buffer: SharedArrayBuffer, bytes: number): boolean {
  if (bytes <= buffer.byteLength) return true;
  if (!buffer.growable || bytes > buffer.maxByteLength) return false;
  try {
    buffer.grow(bytes);
    return true;
  } catch (error) {
    if (error instanceof RangeError) return bytes <= buffer.byteLength; // Full, or another rank was faster.
    throw error;
  }
}

/** Checks that a buffer is the memory of a world, with a place for a rank. */
export function checkMemory(buffer: SharedArrayBuffer, rank: number): void {
  const isShared = typeof SharedArrayBuffer !== "undefined" && buffer instanceof SharedArrayBuffer;
  if (!isShared || buffer.byteLength <= MEMORY_BYTES) {
    throw new TypeError(
      `Cannot join the group as its memory must be a seat's SharedArrayBuffer: current value is ${
        display(buffer)
      }`,
    );
  }
  const worldSize = new Int32Array(buffer, WORLD, 16)[GROUP.worldSize];
  if (Number.isInteger(rank) && rank >= 0 && rank < worldSize) return;
  throw new TypeError(
    `Cannot join the group as the seat's rank must be below ${worldSize}: current value is ${
      display(rank)
    }`,
  );
}
