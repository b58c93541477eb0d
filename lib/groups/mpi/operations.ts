/**
 * Reductions by functions of the program: an MPI operation calls them back, on a datatype that is a whole vector, so
 * that MPI cannot cut it.
 */

import type { Combine } from "../../collectives.ts";
import { combineMoments, combineMomentsInto } from "../../moments.ts";
import { checkTotal } from "../contributions.ts";
import { handles, type Library } from "./library.ts";
import type { Memory } from "./memory.ts";

/** What a function threw on this rank, if it did. */
export type Failure = { readonly cause: unknown } | undefined;

/** An operation, while one call has it. */
export interface Operation {
  readonly handle: bigint;
  /** What it does at present, on vectors of `length` values and a status. */
  combine: Combine;
  length: number;
  failure?: Failure;
}

/** The operations of a process. */
export type Operations = ReturnType<typeof createOperations>;

/** How many datatypes to keep: a network has a few different widths, each at most twice. */
const KEPT_TYPES = 64;

/** Makes the operations of a process. */
export function createOperations(library: Library, memory: Memory) {
  const { symbols, ok } = library;
  /** Neither freed nor closed: MPI may call back as long as it runs. */
  const callbacks: unknown[] = [];
  const free: Operation[] = [];
  const types = new Map<number, bigint>();
  const freeType = (type: bigint) =>
    ok(symbols.MPI_Type_free(handles().fill(type)), "MPI_Type_free");

  function createOperation(): Operation {
    const callback = new Deno.UnsafeCallback(
      { parameters: ["pointer", "pointer", "pointer", "pointer"], result: "void" },
      (left, right) => apply(operation, library, memory, left!, right!),
    );
    callbacks.push(callback);
    const handle = handles();
    // 0: it does not commute, so that MPI keeps to the order of the ranks.
    ok(symbols.MPI_Op_create(callback.pointer, 0, handle), "MPI_Op_create");
    const operation = { handle: handle[0], combine: combineMoments, length: 0 };
    return operation;
  }

  return {
    /** An operation that no call has. Several communicators may be in flight, and a test of one runs those of others. */
    take: (combine: Combine, length: number): Operation => {
      const operation = free.pop() ?? createOperation();
      return Object.assign(operation, { combine, length, failure: undefined });
    },
    /** Gives it back, once MPI is done with it. */
    give: (operation: Operation): void => void free.push(operation),
    /** The datatype of `length` float64 in a row. */
    vector: (length: number): bigint => {
      const known = types.get(length);
      types.delete(length);
      const type = known ?? createVector(library, length);
      types.set(length, type);
      // MPI keeps a freed type as long as a pending call needs it.
      if (types.size > KEPT_TYPES) {
        const [oldest] = types;
        types.delete(oldest[0]);
        freeType(oldest[1]);
      }
      return type;
    },
    /** Frees what MPI would miss at its end. */
    close: (): void => types.forEach(freeType),
  };
}

function createVector({ symbols, ok, double }: Library, length: number): bigint {
  const type = handles();
  ok(symbols.MPI_Type_contiguous(length, double, type), "MPI_Type_contiguous");
  ok(symbols.MPI_Type_commit(type), "MPI_Type_commit");
  return type[0];
}

/**
 * What MPI calls: right = combine(left, right), and a status of 1 behind the values of whatever has failed anywhere. On
 * copies: MPI's memory is elsewhere each time, and an ArrayBuffer around it costs more than to copy 100 KB; and a function
 * that we do not know may keep what it gets, so that its copies are its own.
 */
function apply(
  operation: Operation,
  { symbols }: Library,
  memory: Memory,
  left: Deno.PointerObject,
  right: Deno.PointerObject,
): void {
  const { combine, length } = operation;
  const bytes = BigInt(8 * (length + 1));
  const isOwn = combine === combineMoments;
  const room = () => isOwn ? memory.take(length + 1) : new Float64Array(length + 1);
  const [a, b] = [room(), room()];
  symbols.fromMemory(a, left, bytes);
  symbols.fromMemory(b, right, bytes);
  if (a[length] === 0 && b[length] === 0) {
    const [own, total] = [a.subarray(0, length), b.subarray(0, length)];
    operation.failure = combineInto(own, total, total, combine);
  }
  if (a[length] !== 0 || operation.failure) b[length] = 1;
  symbols.toMemory(right, b, bytes);
  if (isOwn) [a, b].forEach(memory.give);
}

/** into = combine(a, b); gives what was thrown. */
export function combineInto(
  a: Float64Array,
  b: Float64Array,
  into: Float64Array,
  combine: Combine,
): Failure {
  try {
    if (combine === combineMoments) combineMomentsInto(a, b, into);
    else into.set(checkTotal(combine(a, b), into.length, combine));
  } catch (cause) {
    return { cause };
  }
}
