/**
 * What a kernel of the demo is: data. The WGSL of each is written out whole, so that it can be read alone.
 *
 * All of them are bound alike: binding 0 is the uniform `p`, then come the vectors that are read, then those that are
 * written. `p` begins with a `u32` per vector that is read, `xAt` for `x`: where it begins in what is bound. For a part of
 * a vector may begin anywhere, while WebGPU binds from multiples of 256 bytes on. What is written is bound exactly, so that
 * `arrayLength` tells its length.
 *
 * @module
 */

/** One compute shader with the entry point `main`. */
export interface Kernel {
  /** What it is called in messages. */
  readonly name: string;
  /** The whole shader. */
  readonly code: string;
}

/** Invocations of every workgroup. */
export const WORKGROUP = 64;
/** Invocations that share a sum over the rows of a matrix. */
export const LANES = 8;
