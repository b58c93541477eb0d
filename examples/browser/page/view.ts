/**
 * What the page says, made of what it knows.
 *
 * @module
 */

import { IMPOSSIBLE } from "../../report.ts";
import { type RunName, RUNS } from "./messages.ts";
import { DEVICES, problemOf } from "./settings.ts";
import { isBusy, type State } from "./state.ts";

/** What is said of a run. */
export interface RunView {
  readonly accuracy: string;
  readonly distance: string;
  readonly steps: string;
  readonly collective: string;
}

/** What the page says. */
export interface View {
  /** The button's word. */
  readonly button: "Train" | "Stop";
  readonly canPress: boolean;
  /** What has happened, for everybody. */
  readonly status: string;
  readonly isProblem: boolean;
  /** What changes with every step. */
  readonly progress: string;
  /** The share of all steps that has been taken, 0 to 1. */
  readonly share: number;
  readonly device: string;
  /** What this browser or host does not give, and what that means. */
  readonly notes: readonly string[];
  readonly runs: Readonly<Record<RunName, RunView>>;
  /** What the last look was at. */
  readonly moment: string;
}

const NONE = "–";

/** Makes what the page says. */
export function viewOf(state: State): View {
  const { plan, phase, look, settings } = state;
  const [step, steps] = [slowest(state), plan?.steps ?? 0];
  return {
    button: isBusy(state) ? "Stop" : "Train",
    canPress: plan !== null,
    status: statusOf(state),
    isProblem: plan === null || phase === "failed",
    progress: phase === "ready" ? "" : `step ${step} of ${steps}`,
    share: steps === 0 ? 0 : step / steps,
    device: deviceOf(state),
    notes: notesOf(state),
    runs: Object.fromEntries(RUNS.map((run) => [run, runOf(run, state)])) as View["runs"],
    moment: look === null
      ? ""
      : look.step === 0
      ? `before training, ${settings.replicas} × ${settings.images} images`
      : `after step ${look.step}, the same ${settings.replicas} × ${settings.images} images`,
  };
}

/** Writes a distance as people do: 1.2 × 10⁻⁷. */
export function scientific(value: number): string {
  if (!Number.isFinite(value)) return "not a number";
  if (value === 0) return "0";
  const [digits, power] = value.toExponential(1).split("e");
  return `${digits} × ${powerOfTen(Number(power))}`;
}

/** Writes a power of ten. */
export function powerOfTen(power: number): string {
  const digits = [...String(power)];
  return `10${digits.map((digit) => digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]).join("")}`;
}

/** The step that all runs have taken. */
function slowest({ plan, runs }: State): number {
  const performed = RUNS.filter((run) => plan?.runs[run].task);
  return performed.length === 0 ? 0 : Math.min(...performed.map((run) => runs[run].step));
}

function statusOf(state: State): string {
  const { phase, reason, runs, settings } = state;
  switch (phase) {
    case "ready":
      return problemOf(settings) ?? "Ready: press Train.";
    case "starting":
      return `Starting ${settings.replicas + 1} workers …`;
    case "training":
      return "Training …";
    case "stopped":
      return `Stopped at step ${slowest(state)}. Train begins anew.`;
    case "failed":
      return `The training has failed: ${reason?.replace(/\.+$/, "")}. Train begins anew.`;
    case "done": {
      const apart = (run: "sync" | "local") => runs[run].distances.at(-1)?.largest;
      const [sync, local] = [apart("sync"), apart("local")];
      const than = local === undefined ? "" : `, local batch norm ${scientific(local)}`;
      return sync === undefined
        ? "Done."
        : `Done: syncbn has ended ${scientific(sync)} from one process${than}.`;
    }
  }
}

function deviceOf({ devices, settings: { device }, host, phase }: State): string {
  if (devices.length === 0) {
    const last = phase === "ready" || phase === "starting" ? "" : " None was opened.";
    const found = device === "auto" ? "a hardware GPU by WebGPU, else Wasm SIMD" : DEVICES[device];
    const lacks = device === "webgpu" && host.webgpu !== "there";
    return `${found}${lacks ? ", which is not there" : ""}.${last}`;
  }
  const counts = Map.groupBy(devices, (name) => name);
  const named = [...counts].map(([name, own]) => `${own.length} × ${name}`).join("; ");
  return `${named}${device === "auto" ? "" : ", as you chose"}.`;
}

function notesOf({ host }: State): readonly string[] {
  const notes: string[] = [];
  if (host.webgpu === "none") {
    const why = host.secure
      ? "This browser has no WebGPU"
      : "Browsers give WebGPU to pages by https alone, and this one has come by http";
    notes.push(`${why}: replicas compute on the CPU, by Wasm SIMD.`);
  }
  if (host.webgpu === "noAdapter") {
    notes.push("WebGPU finds no GPU here: replicas compute on the CPU, by Wasm SIMD.");
  }
  if (!host.isolated) {
    notes.push(
      "This page is not isolated (crossOriginIsolated is false), so its workers share no memory: " +
        "replicas send each other messages, which is slower; the numbers are the same.",
    );
  }
  return notes;
}

function runOf(run: RunName, { plan, runs }: State): RunView {
  const { exams, distances, ms, collectiveMs } = runs[run];
  const exam = exams.at(-1);
  const apart = distances.at(-1);
  const isPossible = plan === null || plan.runs[run].task !== null;
  return {
    accuracy: exam ? `${(100 * exam.accuracy).toFixed(1)} %` : isPossible ? NONE : IMPOSSIBLE,
    distance: apart ? scientific(apart.largest) : NONE,
    steps: Number.isNaN(ms) ? NONE : (1000 / ms).toFixed(1),
    collective: Number.isNaN(ms) || run === "one" ? NONE : `${collectiveMs.toFixed(2)} ms`,
  };
}
