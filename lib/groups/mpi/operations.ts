/**
 * Reductions by functions of the program: an MPI operation calls them back, on a datatype that is a whole vector, so
 * that MPI cannot cut it.
 */

import type { Combine } from "../../collectives.ts";
import { combineMoments, combineMomentsInto } from "../../moments.ts";
import { checkTotal } from "../contributions.ts";
import { handles, type Library } from "./library.ts";
import type { Memory } from "./memory.ts";

/** An operation, while one call has it. */
export interface Operation {
  /** MPI's handle. */
  readonly handle: bigint;
  /** What it does at present, on vectors of `length` values and a status. */
  combine: Combine;
  length: number;
  /** What `combine` threw on this rank, if it did. */
  failure?: { readonly cause: unknown };
}

/** The operations of a process. */
export interface Operations {
  /** An operation that no call has. Several communicators may be in flight, and a test of one runs those of others. */
  readonly take: (combine: Combine, length: number) => Operation;
  /** Gives it back, once MPI is done with it. */
  readonly give: (operation: Operation) => void;
  /** The datatype of `length` float64 in a row. */
  readonly vector: (length: number) => bigint;
  /** Frees what MPI would miss at its end. */
  readonly close: () => void;
}

/** How many datatypes to keep: a network has a few different widths, each at most twice. */
const KEPT_TYPES = 64;

/** Makes the operations of a process. */
export function createOperations(library: Library, memory: Memory): Operations {
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
    take: (combine, length) => {
      const operation = free.pop() ?? createOperation();
      return Object.assign(operation, { combine, length, failure: undefined });
    },
    give: (operation) => free.push(operation),
    vector: (length) => {
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
    close: () => types.forEach(freeType),
  };
}

function createVector({ symbols, ok, double }: Library, length: number): bigint {
  const type = handles();
  ok(symbols.MPI_Type_contiguous(length, double, type), "MPI_Type_contiguous");
  ok(symbols.MPI_Type_commit(type), "MPI_Type_commit");
  return type[0];
}

/**
 * What MPI calls: right = combine(left, right), and a status of 1 behind the values of whatever has failed anywhere.
 * Nothing may be thrown into MPI.
 *
 * On copies: MPI's memory is elsewhere each time, and an ArrayBuffer around it costs more than to copy 100 KB; and a
 * function that we do not know may keep what it gets, so that its copies are its own.
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
  combineInto(operation, a, b);
  symbols.toMemory(right, b, bytes);
  if (isOwn) [a, b].forEach(memory.give);
}

/** b = combine(a, b), and the status behind it. */
function combineInto(
  operation: Operation,
  a: Float64Array<ArrayBuffer>,
  b: Float64Array<ArrayBuffer>,
): void {
  const { combine, length } = operation;
  const isIntact = a[length] === 0 && b[length] === 0;
  b[length] = 1;
  if (!isIntact) return;
  const [left, right] = [a.subarray(0, length), b.subarray(0, length)];
  try {
    if (combine === combineMoments) combineMomentsInto(left, right, right);
    else {
      const total = checkTotal(combine(left, right), length, combine);
      if (total !== right) b.set(total);
    }
    b[length] = 0;
  } catch (cause) {
    operation.failure = { cause };
  }
}
