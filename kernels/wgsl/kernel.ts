/**
 * A kernel is data: the WGSL text of one compute shader, and what it wants bound. Every kernel of this folder is a pure
 * function from options to such a record; nothing here knows a device.
 */

import type { DType } from "../../lib/tensor.ts";

/** A storage buffer as a shader declares it. */
export interface Storage {
  /** Whether the shader writes there. */
  readonly access: "read" | "read_write";
  /** WGSL type of an element. */
  readonly element: string;
  /**
   * What lies there, which decides on the parameters that come with it: of a tensor a vec4u of its name, its first element
   * and its strides per sample, channel and place; of an array with a record per channel a u32, `nameAt`, where the first
   * channel's record begins, and `nameSlices` where records are slices; of a mask
   * `nameWords`, words per lane; of an array bound as a whole nothing.
   */
  readonly holds: "tensor" | "vector" | "slices" | "mask" | "whole";
}

/** A scalar of a shader's parameters. */
export type Scalar = "u32" | "f32";

/** Values of a shader's parameters by name. */
export type Parameters = Readonly<Record<string, number | readonly number[]>>;

/** One compute shader, and what it wants. */
export interface Kernel {
  /** Names function and options; two kernels of one name are the same shader. */
  readonly name: string;
  /** The whole shader; its entry point is `main`. */
  readonly code: string;
  /** Storage buffers of bind group 0 by name, in the order of their binding numbers. */
  readonly storage: Readonly<Record<string, Storage>>;
  /** Lays out the parameters, which are the uniform buffer of bind group 1; each must have its value. */
  readonly pack: (values: Parameters) => Uint32Array<ArrayBuffer>;
}

/** Bytes of a kernel's parameters at most; every device can bind uniforms from multiples of this on. */
export const PARAMETER_BYTES = 256;

/** What a kernel is made of. */
export interface Source {
  /** The function's name. */
  readonly name: string;
  /** Its options, which go into the kernel's name. */
  readonly options: object;
  /** Storage buffers by name; null ones are left out. */
  readonly storage: Readonly<Record<string, Storage | null>>;
  /** Scalars of the uniform `p`, beside those that come with the storage buffers. */
  readonly parameters?: Readonly<Record<string, Scalar>>;
  /** Everything after the declarations. */
  readonly body: string;
}

/** Puts declarations before a shader's body. */
export function kernel({ name: base, options, parameters, body, ...given }: Source): Kernel {
  const storage = Object.fromEntries(
    Object.entries(given.storage).filter((entry): entry is [string, Storage] => entry[1] !== null),
  );
  const named = Object.entries(storage);
  const fields: Record<string, Scalar | "vec4u"> = {};
  for (const [name, { holds }] of named) if (holds === "tensor") fields[name] = "vec4u";
  for (const [name, { holds }] of named) {
    if (holds === "vector" || holds === "slices") fields[`${name}At`] = "u32";
    if (holds === "slices") fields[`${name}Slices`] = "u32";
    if (holds === "mask") fields[`${name}Words`] = "u32";
  }
  Object.assign(fields, parameters);

  const float16 = named.some(([, { element }]) => element.includes("f16"));
  const code = `${float16 ? "enable f16;" : ""}
struct Parameters {
${Object.entries(fields).map(([name, type]) => `  ${name}: ${type},`).join("\n")}
}
@group(1) @binding(0) var<uniform> p: Parameters;

${
    named.map(([name, { access, element }], binding) =>
      `@group(0) @binding(${binding}) var<storage, ${access}> ${name}: array<${element}>;`
    ).join("\n")
  }
${body}`;
  const name = nameOf(base, options);
  return Object.freeze({ name, code, storage, pack: packer(name, fields) });
}

/** A tensor that is read, as an array of such elements (see `storedAs`). */
export function tensor(element: string): Storage {
  return { access: "read", element, holds: "tensor" };
}

/** A number per channel that is read. */
export function vector(): Storage {
  return { access: "read", element: "f32", holds: "vector" };
}

/** The same storage, written. */
export function written(storage: Storage): Storage {
  return { ...storage, access: "read_write" };
}

/** WGSL's name of an element's storage. */
export function elementOf(dtype: DType): "f32" | "f16" {
  return dtype === "float16" ? "f16" : "f32";
}

function nameOf(name: string, options: object): string {
  const chosen = Object.entries(options).filter(([, value]) => value !== false);
  return [name, ...chosen.map(([key, value]) => value === true ? key : `${key}=${value}`)].join(
    " ",
  );
}

/** WGSL's layout of a uniform struct: scalars of 4 bytes anywhere, vec4u at multiples of 16. */
function packer(
  kernelName: string,
  fields: Readonly<Record<string, Scalar | "vec4u">>,
): Kernel["pack"] {
  let words = 0;
  const places = Object.entries(fields).map(([name, type]) => {
    const size = type === "vec4u" ? 4 : 1;
    const at = Math.ceil(words / size) * size;
    words = at + size;
    return { name, type, at };
  });
  const length = Math.ceil(words / 4) * 4;
  if (4 * length > PARAMETER_BYTES) {
    throw new Error(`Kernel "${kernelName}" has too many parameters`);
  }
  return (values) => {
    const packed = new Uint32Array(length);
    const floats = new Float32Array(packed.buffer);
    for (const { name, type, at } of places) {
      const value = values[name];
      if (value === undefined) throw new Error(`Kernel "${kernelName}" wants a value of ${name}`);
      if (typeof value !== "number") packed.set(value, at);
      else if (type === "f32") floats[at] = value;
      else packed[at] = value;
    }
    return packed;
  };
}
