/** Normalization of a batch: y = (x - mean) * s * weight + bias, then the residual, then the activation. */

import type { DType } from "../../lib/tensor.ts";
import { type Kernel, tensor, vector, written } from "./kernel.ts";
import { BOUNDS, maskStorage, maskWriter, PACKS_OF_A_WORD } from "./mask.ts";
import { INVSTD } from "./moments_algebra.ts";
import { type Source, statistics, statisticsStorage } from "./statistics.ts";
import {
  aheadOf,
  loop,
  type Named,
  ofVector,
  putValues,
  storedAs,
  type Tile,
  tiledKernel,
  valuesOf,
} from "./tiles.ts";

/** What a normalization is made of. */
export interface NormalizeOptions extends Tile {
  readonly dtype: DType;
  readonly source: Source;
  readonly weight: boolean;
  readonly bias: boolean;
  readonly residual: boolean;
  readonly activation: "none" | "relu" | "bounded";
  /** Whether it writes where the result is positive; needs packs. */
  readonly mask: boolean;
}

const ACTIVATED = {
  none: "",
  relu: "value = select(value, Values(0.0), value <= Values(0.0));",
  bounded:
    "value = min(select(value, p.negativeSlope * value, value <= Values(0.0)), Values(p.maxValue));",
} as const;

/**
 * Each workgroup merges the slices of its channels' moments, then normalizes its slice of their positions: x, statistics,
 * weight?, bias?, residual? -> y, mask?.
 */
export function normalizeKernel(options: NormalizeOptions): Kernel {
  const { dtype, pack, source, weight, bias, residual, activation, mask } = options;
  const stored = storedAs(dtype, pack);
  const put = (at: string, { x, added }: Named, shift?: string) =>
    `var value = (${x} - stats.mean) * scale + offsets;
    ${added ? `value += ${added};` : ""}
    ${ACTIVATED[activation]}
    let kept = ${stored}(value);
    ${putValues("y", at, "kept")}
    ${shift ? `word |= bitsOf(Values(kept)) << ${shift};` : ""}`;
  const inOneWord = (all: readonly Named[], at: readonly string[]) =>
    `var word = 0u;
    ${all.map((names, i) => `{ ${put(at[i], names, `${4 * i}u`)} }`).join("\n    ")}
    mask[wordAt(c, ${at[0]})] = word;`;
  return tiledKernel({
    name: "normalize",
    options,
    storage: {
      x: tensor(stored),
      ...statisticsStorage(source),
      weight: weight ? vector() : null,
      bias: bias ? vector() : null,
      residual: residual ? tensor(stored) : null,
      y: written(tensor(stored)),
      mask: mask ? maskStorage("read_write") : null,
    },
    parameters: { eps: "f32", ...(activation === "bounded" && BOUNDS) },
    declared: `${statistics(source, options)}${INVSTD}${mask ? maskWriter(options) : ""}`,
    body: `let stats = statistics(place, thread);
  if (!exists(place)) { return; }
  let c = place.channel;
  var scale = invstd(stats.m2, stats.count);
  ${weight ? `scale *= ${ofVector(options, "weight")};` : ""}
  // The mean's low part goes into the offset: x - mean loses no digits, however large the mean.
  var offsets = -stats.meanLow * scale;
  ${bias ? `offsets += ${ofVector(options, "bias")};` : ""}
  ${mask ? "var word = 0u;\n  var shift = 0u;" : ""}
  ${
      loop(
        mask ? PACKS_OF_A_WORD : aheadOf(pack),
        (at) => ({ x: valuesOf("x", at), ...(residual && { added: valuesOf("residual", at) }) }),
        (at, names) => mask ? `${put(at, names, "shift")}\n    shift += 4u;` : put(at, names),
        mask ? inOneWord : undefined,
      )
    }
  ${mask ? "if (shift > 0u) { mask[wordAt(c, position - shift / 4u * ROWS)] = word; }" : ""}`,
  });
}
