/**
 * The MPI library: opened through Deno's FFI, with what differs between the two families as constants.
 *
 * Every handle is passed as `usize`: Open MPI's are addresses, MPICH's are ints, which a C function reads from the
 * lower half of the register.
 */

import { messageOf } from "../failures.ts";
import { MpiError } from "./errors.ts";
import type { Launcher, MpiFamily } from "./launcher.ts";

const call = <const T extends readonly Deno.NativeType[]>(...parameters: T) =>
  ({ parameters, result: "i32" }) as const;

const FUNCTIONS = {
  MPI_Get_library_version: call("buffer", "buffer"),
  MPI_Initialized: call("buffer"),
  MPI_Init_thread: call("pointer", "pointer", "i32", "buffer"),
  MPI_Finalize: call(),
  MPI_Abort: call("usize", "i32"),
  MPI_Error_string: call("i32", "buffer", "buffer"),
  MPI_Comm_set_errhandler: call("usize", "usize"),
  MPI_Comm_rank: call("usize", "buffer"),
  MPI_Comm_size: call("usize", "buffer"),
  MPI_Comm_dup: call("usize", "buffer"),
  MPI_Comm_split: call("usize", "i32", "i32", "buffer"),
  MPI_Comm_split_type: call("usize", "i32", "i32", "usize", "buffer"),
  MPI_Comm_free: call("buffer"),
  MPI_Allreduce: call("buffer", "buffer", "i32", "usize", "usize", "usize"),
  MPI_Iallreduce: call("buffer", "buffer", "i32", "usize", "usize", "usize", "buffer"),
  // The first argument is always MPI_IN_PLACE.
  MPI_Iallgather: call("usize", "i32", "usize", "buffer", "i32", "usize", "usize", "buffer"),
  MPI_Ibcast: call("buffer", "i32", "usize", "i32", "usize", "buffer"),
  MPI_Ibarrier: call("usize", "buffer"),
  MPI_Test: call("buffer", "buffer", "usize"),
  MPI_Isend: call("buffer", "i32", "usize", "i32", "i32", "usize", "buffer"),
  MPI_Irecv: call("buffer", "i32", "usize", "i32", "i32", "usize", "buffer"),
  MPI_Iprobe: call("i32", "i32", "usize", "buffer", "usize"),
  MPI_Recv: call("buffer", "i32", "usize", "i32", "i32", "usize", "usize"),
  MPI_Op_create: call("function", "i32", "buffer"),
  MPI_Type_contiguous: call("i32", "usize", "buffer"),
  MPI_Type_commit: call("buffer"),
  MPI_Type_free: call("buffer"),
  // Of the C library that MPI is linked to: a permission for MPI's path alone is enough.
  fromMemory: { name: "memcpy", parameters: ["buffer", "pointer", "usize"], result: "void" },
  toMemory: { name: "memcpy", parameters: ["pointer", "buffer", "usize"], result: "void" },
  dlopen: { parameters: ["buffer", "i32"], result: "pointer" },
  // On a thread of Deno's pool.
  usleep: { parameters: ["u32"], result: "i32", nonblocking: true },
} as const satisfies Deno.ForeignLibraryInterface;

/** Open MPI's handles are the addresses of these. */
const STATICS = {
  ompi_mpi_comm_world: { type: "pointer", optional: true },
  ompi_mpi_byte: { type: "pointer", optional: true },
  ompi_mpi_double: { type: "pointer", optional: true },
  ompi_mpi_op_sum: { type: "pointer", optional: true },
  ompi_mpi_op_max: { type: "pointer", optional: true },
  ompi_mpi_errors_return: { type: "pointer", optional: true },
  ompi_mpi_info_null: { type: "pointer", optional: true },
} as const satisfies Deno.ForeignLibraryInterface;

/** What `mpi.h` of a family defines; handles are bigints. */
type Constants = typeof MPICH;

const MPICH = {
  commWorld: 0x44000000n,
  byte: 0x4c00010dn,
  double: 0x4c00080bn,
  sum: 0x58000003n,
  max: 0x58000001n,
  errorsReturn: 0x54000001n,
  infoNull: 0x1c000000n,
  inPlace: 0xffff_ffff_ffff_ffffn,
  statusIgnore: 1n,
  commTypeShared: 1,
  anySource: -2,
};

const RTLD_NOW = 2;

/** MPI_THREAD_FUNNELED: the process has threads, this one alone calls MPI. */
export const FUNNELED = 1;

/** An open library. */
export interface Library extends Constants {
  /** Its functions; those of MPI return an error code. */
  readonly symbols: Deno.DynamicLibrary<typeof FUNCTIONS>["symbols"];
  readonly family: MpiFamily;
  /** Its own description, one line. */
  readonly version: string;
  /** The path or name by which it was opened. */
  readonly path: string;
  /** Throws an MpiError with MPI's own text unless the error code is 0. */
  readonly ok: (code: number, name: string) => void;
}

/** The names under which Linux distributions have the families' libraries. */
const NAMES: Record<MpiFamily, readonly string[]> = {
  "Open MPI": ["libmpi.so.40"],
  "MPICH": ["libmpich.so.12", "libmpi.so.12"],
};

const PACKAGES: Record<MpiFamily, string> = {
  "Open MPI": "openmpi-bin and libopenmpi3",
  "MPICH": "mpich and libmpich12",
};

/** Opens the MPI library. */
export function openLibrary(path: string | undefined, launcher: Launcher | null): Library {
  const families: readonly MpiFamily[] = launcher ? [launcher.family] : ["Open MPI", "MPICH"];
  const names = path === undefined ? families.flatMap((family) => NAMES[family]) : [path];
  const reasons: unknown[] = [];
  for (const name of names) {
    const opened = tryOpen(name, reasons);
    if (!opened) continue;
    const library = describe(opened, name);
    if (launcher?.sure && launcher.size > 1 && launcher.family !== library.family) {
      throw wrongPair(launcher, library);
    }
    return library;
  }
  const packages = families.map((family) => `${PACKAGES[family]} for ${family}`).join(", or ");
  throw new MpiError(
    `Cannot make the MPI group as its library must be installed: tried ${names.join(", ")}; ` +
      (path === undefined
        ? `install Debian's packages ${packages}, or give the path as option "library"`
        : `${messageOf(reasons[0])}`),
    "library",
    { cause: reasons[0] },
  );
}

/** Says that a launcher's ranks cannot find each other. */
export function wrongPair(launcher: Launcher, library: Library): MpiError {
  const { family, evidence, size } = launcher;
  const other = library.family === "Open MPI" ? "mpirun.openmpi" : "mpirun.mpich";
  return new MpiError(
    `Cannot make the MPI group as launcher and library must be of one MPI: ${evidence} was set by a launcher for ` +
      `${family}, ${library.path} is ${library.version}, and each of the ${size} ranks would be alone; ` +
      `start with ${other}, or load ${NAMES[family].join(" or ")}`,
    "launcher",
  );
}

type Opened = Deno.DynamicLibrary<typeof FUNCTIONS & typeof STATICS>["symbols"];

function tryOpen(name: string, reasons: unknown[]): Opened | null {
  try {
    const { symbols } = Deno.dlopen(name, { ...FUNCTIONS, ...STATICS });
    // Deno closes libraries when it ends, before it says why; MPI's own threads would still run in this one. Opened once
    // more, it stays.
    symbols.dlopen(new TextEncoder().encode(`${name}\0`), RTLD_NOW);
    return symbols;
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotCapable)) {
      reasons.push(cause);
      return null;
    }
    throw new MpiError(
      `Cannot make the MPI group as it must load ${name}: run deno with --allow-ffi, or with ` +
        `--allow-ffi=PATH and the library's absolute path as option "library"`,
      "permission",
      { cause },
    );
  }
}

function describe(symbols: Opened, path: string): Library {
  const version = textFrom((text, length) => symbols.MPI_Get_library_version(text, length));
  const openMpi = symbols.ompi_mpi_comm_world !== null;
  if (!openMpi && !/mpich|intel/i.test(version)) {
    throw new MpiError(
      `Cannot make the MPI group as its library must be Open MPI or one with MPICH's binary interface: ` +
        `${path} is ${version}`,
      "library",
    );
  }
  return Object.freeze({
    symbols,
    path,
    version,
    family: openMpi ? "Open MPI" : "MPICH",
    ok: (code: number, name: string) => {
      if (code === 0) return;
      const text = textFrom((text, length) => symbols.MPI_Error_string(code, text, length));
      throw new MpiError(`${name} failed: ${text}`, "call");
    },
    ...(openMpi ? constantsOf(symbols) : MPICH),
  });
}

function constantsOf(symbols: Opened): Constants {
  const address = (pointer: unknown) =>
    BigInt(Deno.UnsafePointer.value(pointer as Deno.PointerValue));
  return {
    commWorld: address(symbols.ompi_mpi_comm_world),
    byte: address(symbols.ompi_mpi_byte),
    double: address(symbols.ompi_mpi_double),
    sum: address(symbols.ompi_mpi_op_sum),
    max: address(symbols.ompi_mpi_op_max),
    errorsReturn: address(symbols.ompi_mpi_errors_return),
    infoNull: address(symbols.ompi_mpi_info_null),
    inPlace: 1n,
    statusIgnore: 0n,
    commTypeShared: 0,
    anySource: -1,
  };
}

/** The first line of a text that a C function writes, with its length. */
function textFrom(
  write: (text: Uint8Array<ArrayBuffer>, length: Int32Array<ArrayBuffer>) => void,
): string {
  const text = new Uint8Array(8192);
  const length = ints();
  write(text, length);
  const [line] = new TextDecoder().decode(text.subarray(0, length[0])).split(/[\0\n]/);
  return line.replace(/,.*|\s+$/g, "").replace(/\s+/g, " ");
}

/** Room for an int that MPI writes. Its buffer is its own, so that it never moves. */
export function ints(): Int32Array<ArrayBuffer> {
  return new Int32Array(new ArrayBuffer(4));
}

/** Room for a handle that MPI writes: a pointer, or an int in its lower half. */
export function handles(): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array(new ArrayBuffer(8));
}
