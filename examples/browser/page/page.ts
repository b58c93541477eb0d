/// <reference lib="dom" />
/**
 * The page: what its reader does becomes actions, actions make the next state, and the state is drawn.
 *
 * @module
 */

import { type Digits, readDigits } from "../../digits.ts";
import { BLOCKS } from "../../blocks.ts";
import { drawCharts } from "./charts.ts";
import { element, morph, setText } from "./dom.ts";
import { firstLook } from "./first_look.ts";
import { isolate } from "./isolate.ts";
import { RUNS } from "./messages.ts";
import { pictureOf } from "./picture.ts";
import { LIMITS, readSettings, writeSettings } from "./settings.ts";
import {
  type Action,
  type Channel,
  firstState,
  type Host,
  isBusy,
  next,
  type State,
} from "./state.ts";
import { drawPanel, symbols } from "./svg.ts";
import { trainInWorkers } from "./training.ts";
import type { MakeChart } from "./uplot.ts";
import { viewOf } from "./view.ts";

/** What the page is made with. */
export interface Parts {
  readonly uPlot: MakeChart;
  /** Address of the workers' module. */
  readonly rank: URL;
  /** Address of the service worker that isolates the page where its host does not. */
  readonly isolation: URL;
  /** Address of the images. */
  readonly digits: URL;
}

/** Starts the page. */
export async function startPage({ uPlot, rank, isolation, digits: address }: Parts): Promise<void> {
  if (await isolate(isolation)) return; // It loads again.
  const digits = await loadDigits(address);
  const host: Host = {
    ...{ isolated: crossOriginIsolated, secure: isSecureContext },
    webgpu: await lookForWebGpu(),
  };
  let state = firstState(readSettings(new URLSearchParams(location.search)), host);
  let abort = new AbortController();
  const charts = drawCharts(uPlot);

  let isDue = false;
  const act = (action: Action): void => {
    const before = state;
    state = next(state, action);
    if (state === before) return;
    if (state.plan !== before.plan) look();
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      draw(state, digits, charts.draw);
    });
  };
  const look = async (): Promise<void> => {
    const { plan } = state;
    if (plan !== null) act({ kind: "look", plan, look: await firstLook(plan, digits) });
  };
  const train = async (): Promise<void> => {
    act({ kind: "start" });
    const { plan, settings: { device } } = state;
    if (plan === null) return;
    abort = new AbortController();
    const { signal } = abort;
    try {
      const onTold = (told: Extract<Action, { kind: "told" }>["told"]) =>
        act({ kind: "told", told });
      await trainInWorkers({ plan, device, digits, rank, onTold, signal });
      act({ kind: "end", phase: "done" });
    } catch (error) {
      if (signal.aborted) act({ kind: "end", phase: "stopped" });
      else act({ kind: "fail", reason: error instanceof Error ? error.message : `${error}` });
    }
  };

  const form = element<HTMLFormElement>("settings");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (isBusy(state)) abort.abort();
    else train();
  });
  form.addEventListener("input", () => {
    const settings = readSettings(new FormData(form));
    history.replaceState(null, "", `?${writeSettings(settings)}`);
    act({ kind: "set", settings });
  });
  element("values").addEventListener(
    "input",
    () => act({ kind: "choose", channel: readChannel() }),
  );
  writeForm(state);
  draw(state, digits, charts.draw);
  await look();
}

async function loadDigits(address: URL): Promise<Digits> {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`Cannot load the digits: ${response.status}`);
  return await readDigits(await response.bytes());
}

async function lookForWebGpu(): Promise<Host["webgpu"]> {
  if (!navigator.gpu) return "none";
  try {
    return await navigator.gpu.requestAdapter() ? "there" : "noAdapter";
  } catch {
    return "noAdapter";
  }
}

/** Puts the settings of an address into the form. */
function writeForm({ settings, channel }: State): void {
  for (const name of Object.keys(LIMITS) as (keyof typeof LIMITS)[]) {
    const input = element<HTMLInputElement>(name);
    const { from, to } = LIMITS[name];
    Object.assign(input, { min: `${from}`, max: `${to}`, value: `${settings[name]}` });
  }
  element<HTMLSelectElement>("device").value = settings.device;
  element<HTMLSelectElement>("block").value = `${channel.block}`;
  element<HTMLInputElement>("channel").value = `${channel.channel + 1}`;
}

function readChannel(): Channel {
  const block = Number(element<HTMLSelectElement>("block").value);
  const wanted = Number(element<HTMLInputElement>("channel").value);
  return { block, channel: Math.min(wanted, BLOCKS[block].channels) - 1 };
}

function draw(state: State, digits: Digits, drawCurves: (state: State) => void): void {
  const view = viewOf(state);
  const { settings, channel: { block, channel } } = state;
  const busy = isBusy(state);
  for (const name of ["replicas", "images", "epochs", "device"]) {
    element<HTMLInputElement | HTMLSelectElement>(name).disabled = busy;
  }
  setText("replicas-value", `${settings.replicas}`);
  setText("images-value", `${settings.images}`);
  setText("epochs-value", `${settings.epochs}`);
  const button = element<HTMLButtonElement>("train");
  button.disabled = !view.canPress;
  setText("train", view.button);
  setText("status", view.status);
  element("status").classList.toggle("problem", view.isProblem);
  setText("progress-text", view.progress);
  element<HTMLProgressElement>("progress").value = view.share;
  setText("host-device", view.device);
  morph(element("notes"), view.notes.map((note) => `<li>${note}</li>`).join(""));
  element("notes").hidden = view.notes.length === 0;
  for (const run of RUNS) {
    const { accuracy, distance, steps, collective } = view.runs[run];
    setText(`${run}-accuracy`, accuracy);
    setText(`${run}-distance`, distance);
    setText(`${run}-steps`, steps);
    setText(`${run}-collective`, collective);
  }

  const { channels } = BLOCKS[block];
  element<HTMLInputElement>("channel").max = `${channels}`;
  setText("channel-value", `${channel + 1} of ${channels}`);
  setText("moment", view.moment);
  const picture = pictureOf(state);
  if (picture === null) return drawCurves(state);
  morph(element("symbols"), symbols(picture.images, digits.training));
  for (const panel of picture.panels) morph(element(`panel-${panel.name}`), drawPanel(panel));
  drawCurves(state);
}
