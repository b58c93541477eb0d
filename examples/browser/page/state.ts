/**
 * What the page knows, as one record, and how everything that happens makes the next one of it.
 *
 * @module
 */

import { type Distance, largestDifference, type Plan } from "../../compare.ts";
import type { Exam } from "../../train.ts";
import { type Looked, type RunName, RUNS, type Stepped, type Told } from "./messages.ts";
import { planOf, problemOf, type Settings } from "./settings.ts";

/** Where the training stands. */
export type Phase = "ready" | "starting" | "training" | "done" | "stopped" | "failed";

/** What the browser gives this page. */
export interface Host {
  /** Whether workers may share memory. */
  readonly isolated: boolean;
  /** Whether the page has come by https, or from this machine. */
  readonly secure: boolean;
  /** `"none"` without WebGPU, `"noAdapter"` where it has nothing to compute on. */
  readonly webgpu: "none" | "noAdapter" | "there";
}

/** A run as far as it has come. */
export interface RunState {
  readonly step: number;
  readonly exams: readonly Exam[];
  /** How far its parameters are from those of one process. */
  readonly distances: readonly Distance[];
  /** Parameters that wait to be compared; of one process, all. */
  readonly snapshots: ReadonlyMap<number, Float32Array>;
  /** Mean time of its latest steps in ms, and how much of it was spent in collectives; NaN before the first. */
  readonly ms: number;
  readonly collectiveMs: number;
}

/** What the batch norms of all replicas are given of the same images. */
export interface Look {
  /** The step before it; 0 for the first parameters. */
  readonly step: number;
  /** By replica, then by block. */
  readonly features: readonly (readonly Float32Array[])[];
}

/** Which values the picture shows. */
export interface Channel {
  readonly block: number;
  readonly channel: number;
}

/** All that the page knows. */
export interface State {
  readonly settings: Settings;
  /** Null where the settings cannot be trained with. */
  readonly plan: Plan | null;
  readonly host: Host;
  readonly phase: Phase;
  /** Why it failed. */
  readonly reason: string | null;
  /** What each worker computes on, as they open. */
  readonly devices: readonly string[];
  readonly runs: Readonly<Record<RunName, RunState>>;
  readonly look: Look | null;
  /** Parts of the next look. */
  readonly parts: readonly Looked[];
  readonly channel: Channel;
}

/** What happens. */
export type Action =
  | { readonly kind: "set"; readonly settings: Settings }
  | { readonly kind: "choose"; readonly channel: Channel }
  | { readonly kind: "look"; readonly plan: Plan; readonly look: Look }
  | { readonly kind: "start" }
  | { readonly kind: "told"; readonly told: Told }
  | { readonly kind: "end"; readonly phase: "done" | "stopped" }
  | { readonly kind: "fail"; readonly reason: string };

/** A channel in which replicas of few images see very different values: one of the dense layer, one value per image. */
const FIRST_CHANNEL: Channel = { block: 2, channel: 0 };
/** The share of the latest step in a mean time. */
const FRESH = 0.1;

const NOTHING: RunState = Object.freeze({
  ...{ step: 0, exams: [], distances: [], snapshots: new Map() },
  ...{ ms: NaN, collectiveMs: NaN },
});

/** The page before anything has happened. */
export function firstState(settings: Settings, host: Host): State {
  return Object.freeze<State>({
    ...{ settings, host, plan: problemOf(settings) === null ? planOf(settings) : null },
    ...{ phase: "ready", reason: null, devices: [], runs: noRuns() },
    ...{ look: null, parts: [], channel: FIRST_CHANNEL },
  });
}

/** Whether workers run. */
export function isBusy({ phase }: State): boolean {
  return phase === "starting" || phase === "training";
}

/** The page after something has happened; what does not concern it any more changes nothing. */
export function next(state: State, action: Action): State {
  switch (action.kind) {
    case "set": {
      if (isBusy(state)) return state;
      const { host, channel } = state;
      return Object.freeze({ ...firstState(action.settings, host), channel });
    }
    case "choose":
      return Object.freeze({ ...state, channel: action.channel });
    case "look":
      if (action.plan !== state.plan || state.phase !== "ready") return state;
      return Object.freeze({ ...state, look: action.look });
    case "start":
      if (isBusy(state) || state.plan === null) return state;
      return Object.freeze<State>({
        ...{ ...state, phase: "starting", reason: null, devices: [], runs: noRuns(), parts: [] },
      });
    case "told":
      return isBusy(state) ? Object.freeze(afterTold(state, action.told)) : state;
    case "end":
      return isBusy(state) ? Object.freeze({ ...state, phase: action.phase }) : state;
    case "fail":
      if (!isBusy(state)) return state;
      return Object.freeze<State>({ ...state, phase: "failed", reason: action.reason });
  }
}

function noRuns(): State["runs"] {
  return Object.freeze({ one: NOTHING, sync: NOTHING, local: NOTHING, none: NOTHING });
}

function afterTold(state: State, told: Told): State {
  switch (told.kind) {
    case "opened":
      return { ...state, devices: [...state.devices, told.device] };
    case "stepped":
      return { ...state, phase: "training", runs: afterStep(state.runs, told) };
    case "looked":
      return afterLook(state, told);
    case "finished":
      return state;
  }
}

function afterStep(
  runs: State["runs"],
  { run, step, ms, collectiveMs, exam, parameters }: Stepped,
): State["runs"] {
  const { exams, snapshots, ...old } = runs[run];
  const mean = (before: number, now: number) =>
    Number.isNaN(before) ? now : before + FRESH * (now - before);
  const stepped: RunState = {
    ...{ ...old, step, ms: mean(old.ms, ms), collectiveMs: mean(old.collectiveMs, collectiveMs) },
    exams: exam ? [...exams, exam] : exams,
    snapshots: parameters ? new Map([...snapshots, [step, parameters]]) : snapshots,
  };
  const all = { ...runs, [run]: stepped };
  if (!parameters) return Object.freeze(all);
  const compared = RUNS.map((name) =>
    [name, name === "one" ? all.one : compare(all[name], all.one)] as const
  );
  return Object.freeze(Object.fromEntries(compared) as State["runs"]);
}

/** Holds a run against one process wherever both have been. */
function compare(run: RunState, one: RunState): RunState {
  const both = [...run.snapshots].filter(([step]) => one.snapshots.has(step));
  if (both.length === 0) return run;
  const found = both.map(([step, parameters]) => ({
    step,
    largest: largestDifference(parameters, one.snapshots.get(step) ?? parameters),
  }));
  const snapshots = new Map([...run.snapshots].filter(([step]) => !one.snapshots.has(step)));
  const distances = [...run.distances, ...found].sort((a, b) => a.step - b.step);
  return { ...run, snapshots, distances };
}

/** A look is shown once all replicas have told their part of it. */
function afterLook(state: State, looked: Looked): State {
  const parts = [...state.parts, looked];
  const own = parts.filter(({ step }) => step === looked.step);
  if (own.length < state.settings.replicas) return { ...state, parts };
  const features = own.sort((a, b) => a.rank - b.rank).map(({ features }) => features);
  const later = parts.filter(({ step }) => step > looked.step);
  return { ...state, parts: later, look: { step: looked.step, features } };
}
