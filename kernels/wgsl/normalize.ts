/**
 * Normalization of a batch: y = (x - mean) * s * weight + bias, then the residual, then ReLU.
 *
 * @module
 */

import type { DType } from "../../lib/tensor.ts";
import { channels, type Kernel, kernel, result, tensor } from "./kernel.ts";
import { MASK_PARAMETERS, maskStorage, maskWriter } from "./mask.ts";
import { INVSTD } from "./moments_algebra.ts";
import { type Source, statistics, STATISTICS_PARAMETERS, statisticsStorage } from "./statistics.ts";
import {
  entry,
  members,
  ofChannels,
  storedAs,
  stroll,
  type Tile,
  TILE_PARAMETERS,
  tiles,
} from "./tiles.ts";

/** What a normalization is made of. */
export interface NormalizeOptions extends Tile {
  readonly dtype: DType;
  readonly source: Source;
  readonly weight: boolean;
  readonly bias: boolean;
  readonly residual: boolean;
  readonly relu: boolean;
  /** Whether it writes where the result is positive; needs packs, and eight of them ahead. */
  readonly mask: boolean;
}

/**
 * Each workgroup merges the slices of its channels' moments, then normalizes its slice of their positions.
 *
 * @param options storage, how workgroups are made up, statistics, affine map, epilogue
 * @returns the kernel: x, statistics, weight?, bias?, residual? -> y, mask?
 */
export function normalizeKernel(options: NormalizeOptions): Kernel {
  const { dtype, pack, source, weight, bias, residual, relu, mask, subgroups } = options;
  const stored = storedAs(dtype, pack);
  const of = (name: string, at: string) =>
    `Values(${name}[offset(p.${name}, place.channel, ${at})])`;
  const put = (at: string, { x, added }: Readonly<Record<string, string>>, shift?: string) =>
    `var value = (${x} - stats.mean) * scale + offsets;
    ${added ? `value += ${added};` : ""}
    ${relu ? "value = select(value, Values(0.0), value <= Values(0.0));" : ""}
    let kept = ${stored}(value);
    y[offset(p.y, place.channel, ${at})] = kept;
    ${shift ? `word |= bitsOf(Values(kept)) << ${shift};` : ""}`;
  const inOneWord = (all: readonly Readonly<Record<string, string>>[], at: readonly string[]) =>
    `var word = 0u;
    ${all.map((names, i) => `{ ${put(at[i], names, `${4 * i}u`)} }`).join("\n    ")}
    mask[wordAt(c, ${at[0]})] = word;`;
  return kernel({
    name: "normalize",
    options,
    storage: {
      x: tensor(stored),
      ...statisticsStorage(source),
      weight: weight ? channels("f32") : null,
      bias: bias ? channels("f32") : null,
      residual: residual ? tensor(stored) : null,
      y: result(stored),
      mask: mask ? maskStorage("read_write") : null,
    },
    parameters: {
      ...TILE_PARAMETERS,
      ...STATISTICS_PARAMETERS,
      ...(mask && MASK_PARAMETERS),
      eps: "f32",
    },
    subgroups: subgroups === "declared",
    body: `${tiles(options)}${statistics(source, options)}${INVSTD}${
      mask ? maskWriter(options) : ""
    }
${entry(options)} {
  let place = locate(group, grid, thread);
  let stats = statistics(place, thread${members(options).given});
  if (!exists(place)) { return; }
  let c = place.channel;
  var scale = invstd(stats.m2, stats.count);
  ${weight ? `scale *= ${ofChannels(options, (c) => `weight[p.weightAt + ${c}]`)};` : ""}
  // What the mean is short of goes into the offset: x - mean loses no digits, however large the mean.
  var offsets = -stats.short * scale;
  ${bias ? `offsets += ${ofChannels(options, (c) => `bias[p.biasAt + ${c}]`)};` : ""}
  ${mask ? "var word = 0u;\n  var shift = 0u;" : ""}
  ${
      stroll(
        options,
        (at) => ({ x: of("x", at), ...(residual && { added: of("residual", at) }) }),
        (at, names) => mask ? `${put(at, names, "shift")}\n    shift += 4u;` : put(at, names),
        mask ? inOneWord : undefined,
      )
    }
  ${mask ? "if (shift > 0u) { mask[wordAt(c, position - shift / 4u * ROWS)] = word; }" : ""}
}
`,
  });
}
