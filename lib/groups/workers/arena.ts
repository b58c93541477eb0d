/**
 * The shared memory of a group of workers: one growing buffer, cut into areas, one for the world and one for each
 * sub-group. All that is in it is found by offset, so that a buffer is all a worker needs to be handed.
 *
 * @module
 */

import { display } from "../failures.ts";

/** One rank's view of a group's part of the memory. */
export interface Area {
  /** Where it begins, in bytes; what other ranks find it by. */
  readonly offset: number;
  /** Number of ranks of its group. */
  readonly worldSize: number;
  /** Values that a rank can bring at once. */
  readonly capacity: number;
  /** Words of the group, at {@linkcode GROUP}. */
  readonly group: Int32Array<SharedArrayBuffer>;
  /** Words of each rank, at {@linkcode RANK}. */
  readonly ranks: readonly Int32Array<SharedArrayBuffer>[];
  /** What each rank brings, twice: calls alternate, so that nobody writes what another still reads. */
  readonly desks: readonly (readonly Desk[])[];
  /** What the last to arrive has combined. */
  readonly total: Float64Array<SharedArrayBuffer>;
  /** Why a call failed while combining. */
  readonly combining: Text;
  /** Why the group is broken. */
  readonly breakdown: Text;
}

/** Where a rank lays down its part of a call. */
export interface Desk {
  /** Words at {@linkcode DESK}. */
  readonly words: Int32Array<SharedArrayBuffer>;
  /** What it called, or why it failed. */
  readonly saying: Text;
  /** What it brings. */
  readonly values: Float64Array<SharedArrayBuffer>;
}

/** A text in shared memory; cut off where it is too long. */
export interface Text {
  readonly write: (text: string) => void;
  readonly read: () => string;
}

/** Words of a group. */
export const GROUP = {
  /** Changes whenever there may be something new; what waiting ranks sleep on. */
  wake: 0,
  /** Number of the round under way; -1 - number once the group is broken. Whoever changes it has decided the round. */
  round: 1,
  /** Ranks that have arrived in this round. */
  arrived: 2,
  /** What came of the last round: {@linkcode VERDICT}. */
  verdict: 3,
  /** 1 + the rank that is combining, or 0. */
  combining: 4,
  /** 1 while somebody writes why the group breaks down. */
  breaking: 5,
  /** Handles that are still in use; with none the area may serve another group. */
  handles: 6,
} as const;
/** What comes of a round. */
export const VERDICT = { done: 0, refused: 1, combineFailed: 2 } as const;
/** Words of a rank. */
export const RANK = {
  /** Calls it has made. */
  calls: 0,
  /** 1 + the last round that it arrived in. */
  arrivals: 1,
  /** 1 once it will make no further call. */
  ended: 2,
  /** Its rank in the world. */
  inWorld: 3,
} as const;
/** Words of a desk. */
export const DESK = { failed: 0, length: 1, hash: 2, hash2: 3 } as const;

/** Words of the whole memory: a lock, where the free part begins, the last area (each knows the one before it). */
const MEMORY = { lock: 0, free: 1, last: 2 } as const;
const MEMORY_BYTES = 64;
/** Where the world's area begins. */
export const WORLD = MEMORY_BYTES;
const GROUP_WORDS = 16;
/** Among a group's words: what makes a list of areas, and tells their sizes. */
const CHAIN = { before: 8, worldSize: 9, capacity: 10 } as const;
const RANK_WORDS = 16;
const DESK_WORDS = 16;
/** Length of a text, in words and in code units. */
const TEXT_WORDS = 512;
const TEXT_UNITS = 2 * (TEXT_WORDS - 1);
/** What ranks of a sub-group can bring at once: enough for the statistics of 4,095 channels. */
const PART_CAPACITY = 8192;
/** Address space for all sub-groups of a world, where buffers can grow. */
const SPACE_BYTES = 2 ** 30;
/** Whoever holds a lock for longer than this has most likely ended. */
const LOCK_MS = 1000;

/**
 * Makes the memory of a world.
 *
 * It takes no more of the machine than what is used: its pages come when they are written to. Where buffers cannot
 * grow, it has room for sixteen sub-groups at a time that are as large as the world.
 *
 * @param worldSize number of ranks
 * @param capacity values that a rank can bring at once; longer arrays travel in several rounds
 * @returns the buffer, to be handed to all ranks
 * @throws RangeError for an impossible capacity
 */
export function createMemory(worldSize: number, capacity: number): SharedArrayBuffer {
  if (!Number.isSafeInteger(capacity) || capacity < 1 || capacity > 2 ** 24) {
    throw new RangeError(
      `Cannot make the group as capacity must be an integer from 1 to ${2 ** 24}: ` +
        `current value is ${capacity}`,
    );
  }
  const world = bytesOf(worldSize, capacity);
  const least = MEMORY_BYTES + world;
  const room = 16 * bytesOf(worldSize, Math.min(capacity, PART_CAPACITY));
  const buffer = growable(least, least + Math.max(room, SPACE_BYTES)) ??
    growable(least, least + room) ?? new SharedArrayBuffer(least + room);
  new Int32Array(buffer, 0, MEMORY_BYTES / 4)[MEMORY.free] = MEMORY_BYTES / 64;
  allocate(buffer, Array.from({ length: worldSize }, (_, rank) => rank), capacity);
  return buffer;
}

/**
 * Says what ranks of a sub-group can bring at once.
 *
 * @param capacity of the group that is split
 * @returns that of its parts
 */
export function partCapacity(capacity: number): number {
  return Math.min(capacity, PART_CAPACITY);
}

/**
 * Finds room for a group.
 *
 * @param buffer the memory
 * @param members the ranks in the world of its ranks
 * @param capacity values that a rank can bring at once
 * @returns where its area begins, or 0 where there is no room
 */
export function allocate(
  buffer: SharedArrayBuffer,
  members: readonly number[],
  capacity: number,
): number {
  const memory = new Int32Array(buffer, 0, MEMORY_BYTES / 4);
  const bytes = bytesOf(members.length, capacity);
  return locked(memory, () => {
    let offset = unused(buffer, memory[MEMORY.last], members.length, capacity);
    const isNew = offset === 0;
    if (isNew) {
      offset = 64 * memory[MEMORY.free];
      if (!reach(buffer, offset + bytes)) return 0;
      const group = new Int32Array(buffer, offset, GROUP_WORDS);
      group[CHAIN.before] = memory[MEMORY.last];
      group[CHAIN.worldSize] = members.length;
      group[CHAIN.capacity] = capacity;
      memory[MEMORY.free] += bytes / 64;
    }
    const area = openArea(buffer, offset);
    const world = openArea(buffer, WORLD);
    for (const word of Object.values(GROUP)) area.group[word] = 0;
    // One more for the world, so that its area never serves another group.
    area.group[GROUP.handles] = members.length + (offset === WORLD ? 1 : 0);
    members.forEach((inWorld, rank) => {
      area.ranks[rank].fill(0);
      area.ranks[rank][RANK.inWorld] = inWorld;
      const ended = offset === WORLD ? 0 : Atomics.load(world.ranks[inWorld], RANK.ended);
      area.ranks[rank][RANK.ended] = ended;
    });
    // Not before it is complete. What was found again is in the list already.
    if (isNew) Atomics.store(memory, MEMORY.last, offset / 64);
    return offset;
  });
}

/**
 * Lists all areas that a rank of the world is in.
 *
 * @param buffer the memory
 * @param inWorld the rank
 * @returns each area with the rank's number in it, the world's last
 */
export function areasOf(
  buffer: SharedArrayBuffer,
  inWorld: number,
): readonly { readonly area: Area; readonly rank: number }[] {
  const memory = new Int32Array(buffer, 0, MEMORY_BYTES / 4);
  // Nobody is to change the list, or the ranks of an area in it, meanwhile.
  return locked(memory, () => {
    const found: { readonly area: Area; readonly rank: number }[] = [];
    for (let at = memory[MEMORY.last]; at > 0;) {
      const area = openArea(buffer, 64 * at);
      const rank = area.ranks.findIndex((words) => words[RANK.inWorld] === inWorld);
      if (rank >= 0) found.push({ area, rank });
      at = area.group[CHAIN.before];
    }
    return found;
  });
}

/**
 * Makes the views of an area.
 *
 * @param buffer the memory
 * @param offset where the area begins, in bytes
 * @returns the area
 */
export function openArea(buffer: SharedArrayBuffer, offset: number): Area {
  let at = offset;
  const words = (count: number): Int32Array<SharedArrayBuffer> => {
    const view = new Int32Array(buffer, at, count);
    at += 4 * count;
    return view;
  };
  const text = (): Text => {
    const length = words(1);
    const units = new Uint16Array(buffer, at, TEXT_UNITS);
    at += 2 * TEXT_UNITS;
    return textIn(length, units);
  };
  const numbers = (): Float64Array<SharedArrayBuffer> => {
    const view = new Float64Array(buffer, at, capacity);
    at += valueBytes(capacity);
    return view;
  };
  const group = words(GROUP_WORDS);
  const [worldSize, capacity] = [group[CHAIN.worldSize], group[CHAIN.capacity]];
  const each = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make);
  return {
    offset,
    worldSize,
    capacity,
    group,
    ranks: each(worldSize, () => words(RANK_WORDS)),
    combining: text(),
    breakdown: text(),
    desks: each(
      2,
      () =>
        each(worldSize, () => ({ words: words(DESK_WORDS), saying: text(), values: numbers() })),
    ),
    total: numbers(),
  };
}

function bytesOf(worldSize: number, capacity: number): number {
  const desk = 4 * DESK_WORDS + 4 * TEXT_WORDS + valueBytes(capacity);
  const words = GROUP_WORDS + worldSize * RANK_WORDS + 2 * TEXT_WORDS;
  return 4 * words + 2 * worldSize * desk + valueBytes(capacity);
}

/** Whole cache lines, so that ranks do not write to each other's. */
function valueBytes(capacity: number): number {
  return 64 * Math.ceil(capacity / 8);
}

function textIn(length: Int32Array, units: Uint16Array): Text {
  return {
    write: (text) => {
      length[0] = text.length;
      const count = Math.min(text.length, units.length);
      for (let i = 0; i < count; i++) units[i] = text.charCodeAt(i);
    },
    read: () => {
      const count = Math.min(length[0], units.length);
      return String.fromCharCode(...units.slice(0, count)) + (length[0] > count ? "..." : "");
    },
  };
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

/** An area whose group nobody has a handle on any more. */
function unused(
  buffer: SharedArrayBuffer,
  last: number,
  worldSize: number,
  capacity: number,
): number {
  for (let at = last; at > 0;) {
    const group = new Int32Array(buffer, 64 * at, GROUP_WORDS);
    const fits = group[CHAIN.worldSize] === worldSize && group[CHAIN.capacity] === capacity;
    if (fits && Atomics.load(group, GROUP.handles) === 0) return 64 * at;
    at = group[CHAIN.before];
  }
  return 0;
}

function locked<T>(memory: Int32Array, body: () => T): T {
  const patience = performance.now() + LOCK_MS;
  while (Atomics.compareExchange(memory, MEMORY.lock, 0, 1) !== 0) {
    if (performance.now() > patience) break;
  }
  try {
    return body();
  } finally {
    Atomics.store(memory, MEMORY.lock, 0);
  }
}

/**
 * Checks that a buffer is the memory of a world.
 *
 * @param buffer what a worker was handed
 * @throws TypeError where it cannot be
 */
export function checkMemory(buffer: SharedArrayBuffer): void {
  const isShared = typeof SharedArrayBuffer !== "undefined" && buffer instanceof SharedArrayBuffer;
  if (isShared && buffer.byteLength > MEMORY_BYTES) return;
  throw new TypeError(
    `Cannot join the group as its memory must be a seat's SharedArrayBuffer: current value is ${
      display(buffer)
    }`,
  );
}
