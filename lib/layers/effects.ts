/**
 * What layers are run with: a device, and groups by their names.
 *
 * A layer names its group, and the effects have the groups: so a model is data, which travels, compares and is stored.
 * A name that only one rank lacks is that rank's own error, since it knows no group to tell; `checkModel` finds it
 * before training.
 */

import { checkGroup } from "../check_effects.ts";
import type { ReduceGroup } from "../collectives.ts";
import type { Device } from "../device.ts";
import { quote } from "../words.ts";

/** What layers are run with. */
export interface LayerEffects<A> {
  /** Where everything lives. */
  readonly device: Device<A>;
  /** Groups by the names that layers call them by; not asked for where no layer is synchronised. */
  readonly groups?: Readonly<Record<string, ReduceGroup>>;
}

/** Finds a group by the name that a layer calls it by. */
export function namedGroup<A>(
  name: string,
  effects: LayerEffects<A>,
  action: string,
): ReduceGroup {
  const { groups } = effects;
  const { group } = effects as { readonly group?: unknown };
  if (typeof groups === "object" && groups !== null && Object.hasOwn(groups, name)) {
    return checkGroup(groups[name], {}, action, { name: `effects.groups[${quote(name)}]` });
  }
  throw new TypeError(
    `Cannot ${action} as effects.groups must hold the group ${quote(name)}: current names are ${
      Object.keys(groups ?? {}).map(quote).join(", ") || "none"
    }${group === undefined ? "" : `; give { groups: { ${name}: group } } instead of { group }`}`,
  );
}
