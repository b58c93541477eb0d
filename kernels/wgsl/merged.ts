/** Slices of a statistic, merged: for the wire, and where two sets become one. */

import { type Folded, gather, recordAt, slicesOf, treeReduce, writeSlice } from "./fold.ts";
import { gradientSums } from "./gradient_sums.ts";
import { type Kernel, written } from "./kernel.ts";
import { moments } from "./moments_algebra.ts";
import { type Tile, tiledKernel } from "./tiles.ts";

/** The statistics there are, by the names of their wires. */
export const FOLDED: Readonly<Record<"moments" | "weighted moments" | "gradient sums", Folded>> = {
  "moments": moments,
  "weighted moments": moments,
  "gradient sums": gradientSums,
};

/** All slices of one array, or of two, as one slice behind the first one's header: one, other? -> merged. */
export function mergedKernel(
  options: Tile & { readonly statistic: keyof typeof FOLDED; readonly two: boolean },
): Kernel {
  const folded = FOLDED[options.statistic];
  const { type, header } = folded;
  const array = slicesOf(folded);
  const [from, to] = ["one", "merged"].map((name) => `${name}[${recordAt(folded, name, "c")}`);
  const copied = Array.from({ length: header }, (_, i) => `${to} + ${i}u] = ${from} + ${i}u];`);
  return tiledKernel({
    name: "merged",
    options,
    storage: { one: array, other: options.two ? array : null, merged: written(array) },
    declared: `${treeReduce(options, folded)}${gather(options, folded, "one")}${
      options.two ? gather(options, folded, "other") : ""
    }`,
    body: `var whole = gather_one(place, thread);
  ${options.two ? `whole = merge${type}(whole, gather_other(place, thread));` : ""}
  if (place.row > 0u || !exists(place)) { return; }
  let c = place.channel;
  ${copied.join("\n  ")}
  ${writeSlice(options, folded, "merged", "0u")}`,
  });
}
