/**
 * What lies where in a group's part of the shared memory: words, texts, and what the ranks bring.
 */

/** A view of the words of a group's part of the memory: who is in it, and how it stands. */
export interface Head {
  /** Number of ranks of its group. */
  readonly worldSize: number;
  /** Which group had it when the view was made: even, and never 0; odd while it is made ready for the next. */
  readonly tenancy: number;
  /** Words of the group, at {@linkcode GROUP}. */
  readonly group: Int32Array<SharedArrayBuffer>;
  /** Words of each rank, at {@linkcode RANK}. */
  readonly ranks: readonly Int32Array<SharedArrayBuffer>[];
  /** 1 where somebody has taken the reason of that number for himself. */
  readonly claims: Int32Array<SharedArrayBuffer>;
}

/** One rank's view of all of it. */
export interface Area extends Head {
  /** Values that a rank can bring at once. */
  readonly capacity: number;
  /** How many bytes it takes. */
  readonly bytes: number;
  /** What each rank brings, twice: calls alternate, so that nobody writes what another still reads. */
  readonly desks: readonly (readonly Desk[])[];
  /** What the last to arrive has combined, or each rank a part of; twice, as the desks. */
  readonly totals: readonly Float64Array<SharedArrayBuffer>[];
  /** Why a call failed while combining. */
  readonly combining: Text;
  /** Room to write why the group is broken; one for each who may find it so at a time. */
  readonly reasons: readonly Text[];
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
  wake: 16,
  /**
   * Number of the round under way, and once the group is broken also why: see {@linkcode roundOf}. In a cache line of its own,
   * since those who wait look at it all the time, while the last to arrive writes to the other words.
   */
  round: 17,
  /** Ranks that have arrived in this round. */
  arrived: 2,
  /** What came of the last round: {@linkcode VERDICT}. */
  verdict: 3,
  /** 1 + the rank that is combining, or 0. */
  combining: 4,
  /** Handles that are still in use; who makes something else of 0 has the area for another group. */
  handles: 5,
  /** See {@linkcode Area.tenancy}. */
  tenancy: 6,
  /** The area that was made before, in 64 bytes; 0 for the first. */
  before: 8,
  worldSize: 9,
  capacity: 10,
} as const;
/** What comes of a round; apart: every rank combines what lies there for itself. */
export const VERDICT = { done: 0, refused: 1, combineFailed: 2, apart: 3 } as const;
/** Words of a rank. */
export const RANK = {
  /** Calls it has made. */
  calls: 0,
  /** 1 + the last round that it arrived in. */
  arrivals: 1,
  /** The tenancy in which it ended: will make no further call. */
  ended: 2,
  /** Its rank in the world. */
  inWorld: 3,
  /** 1 once its seat is taken; in the world alone. */
  taken: 4,
} as const;
/** Words of a desk; alone: 1 where its rank can combine for itself what all bring. */
export const DESK = { failed: 0, length: 1, hash: 2, hash2: 3, alone: 4 } as const;

/** Rounds are counted up to here, an even number, and then from 0 again; no two ranks are more than one apart. */
export const ROUNDS = 2 ** 20;

const GROUP_WORDS = 32;
const RANK_WORDS = 16;
const DESK_WORDS = 16;
/** Length of a text, in words and in code units. */
const TEXT_WORDS = 512;
const TEXT_UNITS = 2 * (TEXT_WORDS - 1);

/**
 * Reads the word of the round: one word says whether the group is broken, why, and in which round, so that who changes
 * it has decided all three.
 */
export function roundOf(word: number): { readonly round: number; readonly reason: number } {
  if (word >= 0) return { round: word, reason: -1 };
  return { round: ~word % ROUNDS, reason: Math.floor(~word / ROUNDS) };
}

/** The word of a broken group. */
export function brokenWord(round: number, reason: number): number {
  return ~(reason * ROUNDS + round);
}

/** Looks at the words of an area. */
export function openHead(buffer: SharedArrayBuffer, offset: number): Head {
  const group = new Int32Array(buffer, offset, GROUP_WORDS);
  const worldSize = group[GROUP.worldSize];
  const rankBytes = 4 * RANK_WORDS;
  const ranksAt = offset + 4 * GROUP_WORDS;
  return {
    worldSize,
    tenancy: Atomics.load(group, GROUP.tenancy),
    group,
    ranks: Array.from(
      { length: worldSize },
      (_, rank) => new Int32Array(buffer, ranksAt + rank * rankBytes, RANK_WORDS),
    ),
    claims: new Int32Array(buffer, ranksAt + worldSize * rankBytes, claimWords(worldSize)),
  };
}

/** Makes all views of an area. */
export function openArea(buffer: SharedArrayBuffer, offset: number): Area {
  const head = openHead(buffer, offset);
  const { group, worldSize, claims } = head;
  const capacity = group[GROUP.capacity];
  let at = claims.byteOffset + claims.byteLength;
  const text = (): Text => {
    const length = new Int32Array(buffer, at, 1);
    const units = new Uint16Array(buffer, at + 4, TEXT_UNITS);
    at += 4 * TEXT_WORDS;
    return textIn(length, units);
  };
  const words = (): Int32Array<SharedArrayBuffer> => {
    const view = new Int32Array(buffer, at, DESK_WORDS);
    at += 4 * DESK_WORDS;
    return view;
  };
  const numbers = (): Float64Array<SharedArrayBuffer> => {
    const view = new Float64Array(buffer, at, capacity);
    at += valueBytes(capacity);
    return view;
  };
  const each = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make);
  return {
    ...head,
    capacity,
    bytes: bytesOf(worldSize, capacity),
    combining: text(),
    reasons: each(reasonsOf(worldSize), text),
    desks: each(
      2,
      () => each(worldSize, () => ({ words: words(), saying: text(), values: numbers() })),
    ),
    totals: each(2, numbers),
  };
}

/** Says how large an area is. */
export function bytesOf(worldSize: number, capacity: number): number {
  const desk = 4 * DESK_WORDS + 4 * TEXT_WORDS + valueBytes(capacity);
  const texts = (1 + reasonsOf(worldSize)) * TEXT_WORDS;
  const words = GROUP_WORDS + worldSize * RANK_WORDS + claimWords(worldSize) + texts;
  return 4 * words + 2 * worldSize * desk + 2 * valueBytes(capacity);
}

/** All ranks and whoever made the seats, should they find the group broken at once. */
function reasonsOf(worldSize: number): number {
  return worldSize + 1;
}

function claimWords(worldSize: number): number {
  return 16 * Math.ceil(reasonsOf(worldSize) / 16);
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
