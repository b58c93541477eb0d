/** The wire of gradients of gradients, apart from the devices' own: none has an array of its format. */

import { sumsWire, type WireFormat, wireLike } from "../wire.ts";

/** Sums of gradients of gradients: [S1 C, S2 C, A C, B C, E C, F C, D C] as `SecondPass` has them, which are added. */
export const secondWire: WireFormat = /* @__PURE__ */ wireLike(sumsWire, {
  length: (channels) => 7 * channels,
});
