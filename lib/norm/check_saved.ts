/**
 * What backward is checked for: everything that it is given back of forward may have been freed since, or come from elsewhere.
 */

import type { Rectified } from "../activation.ts";
import { checkOptions } from "../check_effects.ts";
import { checkEps } from "../check_state.ts";
import { checkOneOf, SWITCH } from "../check_value.ts";
import type { Device } from "../device.ts";
import { checkTensor, FORMATS, type Tensor } from "../tensor.ts";
import { refused, shown } from "../words.ts";
import { checkActivation, checkAlike, checkGivenUp, checkVector, isDonated } from "./check_call.ts";
import type { GroupSaved, Saved } from "./normalize.ts";
import { checkMoments } from "./statistics.ts";
import { checkBoth, takeWeights } from "./weights.ts";

/** One batch norm of a backward pass. */
export interface BackwardCall<A, S extends Saved<A> = GroupSaved<A>> {
  /** What else has to hold, found out in the turn of the call: what it throws is this rank's failure on every rank. */
  readonly check?: () => void;
  readonly saved: S;
  readonly gradOutput: Tensor<A>;
  /** Whether it is given up, and whether sums are kept: what the caller said, which is checked. */
  readonly options: { readonly donate?: boolean; readonly keepSums?: boolean };
  readonly action: string;
}

const OPTIONS = ["donate", "signal"];
/** What the ordinary backward alone does. */
const OWN_OPTIONS = [...OPTIONS, "keepSums"];
/** Memory orders of a residual, or null for none. */
export const SAVED_FORMATS: readonly unknown[] = [...FORMATS, null];

/** Checks everything that backward is given: it may have been freed since forward, or come from elsewhere. */
export function checkSaved<A>(
  { check, saved, gradOutput, options, action }: BackwardCall<
    A,
    Saved<A> & { readonly kind: string; readonly worldSize?: number }
  >,
  kind: "local" | "group",
  device: Device<A>,
  worldSize?: number,
  name?: string,
): void {
  check?.();
  checkOptions(options, name === undefined ? OWN_OPTIONS : OPTIONS, action);
  checkOneOf(options.keepSums, SWITCH, "keepSums", action);
  checkForwards(saved, kind, device, action, worldSize, name);
  checkAlike(device, gradOutput, saved.input, action, "gradOutput");
}

/** Checks what forward saved, for a function of `Backward` or of another name. */
export function checkForwards<A>(
  saved: Saved<A> & { readonly kind: string; readonly worldSize?: number },
  kind: "local" | "group",
  device: Device<A>,
  action: string,
  worldSize?: number,
  name = "Backward",
): void {
  if (saved?.kind !== kind) {
    const [here, there] = kind === "local"
      ? [`batchNorm${name}`, "batchNormForward"]
      : [`syncBatchNorm${name}`, "syncBatchNormForward"];
    const whole = (saved as { saved?: unknown } | undefined)?.saved;
    const advice = whole ? "; give it the field saved of forward's result" : "";
    const came = `kind is ${shown(saved?.kind)}${advice}`;
    throw refused(action, `${here} takes what ${there} saved`, came);
  }
  if (saved.worldSize !== worldSize) {
    throw new RangeError(
      `Cannot ${action} as the group must be that of forward: ` +
        `current numbers of ranks are ${worldSize} and, in forward, ${saved.worldSize}`,
    );
  }
  const { input, output, moments, weight, bias, eps, residualFormat, weights } = saved;
  checkTensor(device, input, action, "saved input");
  const channels = input.shape[1];
  checkOutput(device, output, input, action);
  if (weights !== undefined) checkTensor(device, weights, action, "weights");
  if (weight !== null) checkVector(device, weight, channels, action, "the saved weight");
  if (bias !== null) checkVector(device, bias, channels, action, "the saved bias");
  checkMoments(device, moments, action, "the saved moments", channels);
  checkEps(eps, action);
  checkOneOf(residualFormat, SAVED_FORMATS, "the saved residualFormat", action);
  checkBoth(moments, saved, action);
  takeWeights(device, input, saved, action);
}

/** Checks the output that forward saved where it had an activation. */
export function checkOutput<A>(
  device: Device<A>,
  output: Rectified<A> | null,
  input: Tensor<A>,
  action: string,
): void {
  if (output === null) return;
  checkAlike(device, output, input, action, "saved output");
  checkActivation(output.activation ?? null, action);
}

/** Checks that a gradOutput that is given up is nothing that any of the calls borrows. */
export function checkDonated<A>(calls: readonly BackwardCall<A, Saved<A>>[]): void {
  for (const call of calls) {
    const { gradOutput: given, options, action } = call;
    if (!isDonated(options.donate, action)) continue;
    for (const other of calls) {
      const { input, output, moments, weight, bias, weights } = other.saved;
      const gradOutput = other === call ? null : other.gradOutput;
      const borrowed = { input, output, moments, weight, bias, weights, gradOutput };
      checkGivenUp(given, borrowed, action, "gradOutput");
    }
  }
}
