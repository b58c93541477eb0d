/**
 * ReLU's mask: a bit per element that says where the output is positive, so that backward need not read the output again.
 *
 * A word belongs to one lane (see `tiles.ts`) and to eight packs of it that lie as far apart as a workgroup has rows: those that
 * one invocation of the walk that wrote it had loaded together. So nobody has to wait for a neighbour's bits, and whoever reads
 * finds neighbouring words for neighbouring packs, whatever the workgroups of its own walk are.
 *
 * A mask belongs to the output's array, and no function, record or interface of the library knows of it: a device that
 * has none reads the output. The price is that the output must be kept until backward all the same, on every device.
 */

import type { Storage } from "./kernel.ts";
import type { Named, Pack, Tile } from "./tiles.ts";

/** Packs whose signs share a word. */
export const PACKS_OF_A_WORD = 8;

/** How a mask lies, which the walk that writes it decides, and how large it is. */
export interface MaskLayout {
  /** What an invocation took at a time; never `"none"`. */
  readonly pack: Pack;
  /** Invocations of a workgroup that shared a lane. */
  readonly rows: number;
  /** Words per lane. */
  readonly words: number;
  /** Bytes in all. */
  readonly bytes: number;
}

/** What tells a kernel where ReLU was open: nothing where there was none, the output, that and bounds, or a mask. */
export interface Gate {
  readonly gate: "none" | "output" | "bounded" | "mask";
  /** The mask's layout; `"none"` and 0 without one. */
  readonly maskPack: Pack;
  readonly maskRows: number;
}

/** Options of a kernel without a mask. */
export function plainGate(gate: "none" | "output" | "bounded"): Gate {
  return { gate, maskPack: "none", maskRows: 0 };
}

/** Parameters of a kernel whose activation has bounds. */
export const BOUNDS = Object.freeze({ negativeSlope: "f32", maxValue: "f32" } as const);

/** Whether a kernel reads the output. */
export function readsOutput({ gate }: Gate): boolean {
  return gate === "output" || gate === "bounded";
}

/** Parameters of a gate. */
export function gateParameters({ gate }: Gate) {
  return gate === "bounded" ? BOUNDS : {};
}

/** WGSL: a value as far as a gate lets it through, by the output there or by whether it is open. */
export function behindGate({ gate }: Gate, { output, isOpen }: Named, value: string): string {
  if (gate === "none") return value;
  if (gate !== "bounded") {
    return `select(Values(0.0), ${value}, ${output ? `${output} > Values(0.0)` : isOpen})`;
  }
  const above = `select(${value}, Values(0.0), ${output} >= Values(p.maxValue))`;
  return `select(${above}, p.negativeSlope * ${value}, ${output} <= Values(0.0))`;
}

/** Options of a kernel that reads a mask. */
export function maskGate({ pack, rows }: Pick<MaskLayout, "pack" | "rows">): Gate {
  return { gate: "mask", maskPack: pack, maskRows: rows };
}

/** The mask's buffer. */
export function maskStorage(access: Storage["access"]): Storage {
  return { access, element: "u32", holds: "mask" };
}

/** WGSL: which word has the bits of a pack; positions count packs of the mask. */
function wordAt(pack: Pack, rows: string): string {
  return `
fn wordAt(channel: u32, position: u32) -> u32 {
  let lane = (p.firstChannel + channel) / ${pack === "channels" ? 4 : 1}u;
  return lane * p.maskWords + position / (${PACKS_OF_A_WORD}u * ${rows}) * ${rows} + position % ${rows};
}
`;
}

/** WGSL: `wordAt`, and `bitsOf`, the four bits of a pack's values. Needs `tiles`. */
export function maskWriter({ pack }: Tile): string {
  return `${wordAt(pack, "ROWS")}
fn bitsOf(values: Values) -> u32 {
  return dot(select(vec4u(0u), vec4u(1u, 2u, 4u, 8u), values > Values(0.0)), vec4u(1u));
}
`;
}

/** WGSL: `isOpen`, whether the output was positive, for each of a pack's values. Needs `tiles`. */
export function maskReader({ pack }: Tile, { gate, maskPack, maskRows }: Gate): string {
  if (gate !== "mask") return "";
  const bits = (position: string) =>
    `mask[wordAt(channel, ${position})] >> ((${position} / ${maskRows}u) % ${PACKS_OF_A_WORD}u * 4u)`;
  if (pack !== "none") {
    return `${wordAt(maskPack, `${maskRows}u`)}
fn isOpen(channel: u32, position: u32) -> vec4<bool> {
  let bits = ${bits("position")};
  return (vec4u(bits) & vec4u(1u, 2u, 4u, 8u)) != vec4u(0u);
}
`;
  }
  // Single elements of what was written in packs.
  const [at, component] = maskPack === "places"
    ? ["position / 4u", "position % 4u"]
    : ["position", "(p.firstChannel + channel) % 4u"];
  return `${wordAt(maskPack, `${maskRows}u`)}
fn isOpen(channel: u32, position: u32) -> bool {
  let at = ${at};
  let bits = ${bits("at")};
  return ((bits >> (${component})) & 1u) == 1u;
}
`;
}
