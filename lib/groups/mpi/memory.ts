/**
 * Memory for MPI to read and write: used again and again, since memory that was never touched costs more than what MPI
 * does with it.
 */

/** The memory of a process. */
export type Memory = ReturnType<typeof createMemory>;

/** 64 MiB: what is larger is rare, and not worth holding on to. */
const LARGEST_KEPT = 2 ** 23;

/** Makes the memory of a process, empty. Sizes are powers of two: one for each length that occurs would add up. */
export function createMemory() {
  const free = new Map<number, Float64Array<ArrayBuffer>[]>();
  return {
    /** Room for at least so many float64, with anything in it. */
    take: (length: number): Float64Array<ArrayBuffer> => {
      const size = Math.max(16, 2 ** Math.ceil(Math.log2(length)));
      return free.get(size)?.pop() ?? new Float64Array(new ArrayBuffer(8 * size));
    },
    /** Takes it back, once MPI is done with it. */
    give: (room: Float64Array<ArrayBuffer>): void => {
      if (room.length > LARGEST_KEPT) return;
      const others = free.get(room.length);
      if (others) others.push(room);
      else free.set(room.length, [room]);
    },
  };
}
