/** Real browsers: whether they are there, how they are started without a window, how they end. */

import { demanded } from "../demanded.ts";

/** A browser that tests run in. */
export type BrowserName = "chromium" | "firefox";

/** A browser that runs. */
export interface Browser {
  /** Its profile's folder. */
  readonly profile: string;
  /** Resolves to its exit code once it has ended. */
  readonly ended: Promise<number>;
  /** Ends it, and removes its profile. */
  readonly close: () => Promise<void>;
}

const COMMANDS: Readonly<Record<BrowserName, string>> = {
  chromium: "chromium",
  firefox: "firefox-esr",
};

/** WebGPU on SwiftShader; a page that nobody looks at keeps its pace; shared memory is not that of a small /dev/shm. */
const CHROMIUM_FLAGS = [
  ...["--headless=new", "--no-sandbox", "--no-first-run", "--mute-audio"],
  ...["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--disable-dev-shm-usage"],
  ...["--disable-background-timer-throttling", "--disable-renderer-backgrounding"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
  ...["--disable-extensions", "--disable-quic"],
] as const;

/**
 * WebGPU on llvmpipe, no question about slow scripts, nothing that looks for a network, and nothing for a person who is not
 * there: no second process in reserve, no page of tiles, no extensions.
 */
const FIREFOX_SETTINGS = {
  "dom.webgpu.enabled": true,
  "gfx.webgpu.ignore-blocklist": true,
  "dom.max_script_run_time": 0,
  "app.update.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "browser.safebrowsing.malware.enabled": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "data:,",
  "app.normandy.enabled": false,
  "browser.newtab.preload": false,
  "browser.newtabpage.enabled": false,
  "browser.startup.page": 0,
  "datareporting.healthreport.uploadEnabled": false,
  "dom.ipc.processPrelaunch.enabled": false,
  "extensions.enabledScopes": 0,
  "extensions.webextensions.remote": false,
  "toolkit.telemetry.enabled": false,
} as const;

/** A browser that was asked to end may take this long, in ms. */
const ENDING_MS = 5000;

/** Whether a browser is on this machine, or the run promises it. */
export async function hasBrowser(name: BrowserName): Promise<boolean> {
  if (demanded(name)) return true;
  try {
    return (await new Deno.Command(COMMANDS[name], { args: ["--version"] }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Opens an address in a browser of its own, with a profile of its own, and flags of its own before the usual ones. */
export async function openBrowser(
  name: BrowserName,
  address: string,
  flags: readonly string[] = [],
): Promise<Browser> {
  const profile = await Deno.makeTempDir({ prefix: `syncbn_${name}_` });
  const child = new Deno.Command(COMMANDS[name], {
    args: [...flags, ...await argumentsFor(name, profile, address)],
    // What it leaves in a home or a temporary folder goes with the profile.
    env: { HOME: profile, TMPDIR: profile },
    ...{ stdin: "null", stdout: "null", stderr: "null" },
  }).spawn();
  const ended = child.status.then(({ code }) => code);
  const close = async (): Promise<void> => {
    tryTo(() => child.kill("SIGTERM"));
    const late = setTimeout(() => tryTo(() => child.kill("SIGKILL")), ENDING_MS);
    await child.status;
    clearTimeout(late);
    await removeSoon(profile);
  };
  return { profile, ended, close };
}

async function argumentsFor(
  name: BrowserName,
  profile: string,
  address: string,
): Promise<string[]> {
  if (name === "chromium") return [...CHROMIUM_FLAGS, `--user-data-dir=${profile}`, address];
  const settings = Object.entries(FIREFOX_SETTINGS).map(([key, value]) =>
    `user_pref(${JSON.stringify(key)}, ${JSON.stringify(value)});\n`
  );
  await Deno.writeTextFile(`${profile}/user.js`, settings.join(""));
  return ["--headless", "--no-remote", "--profile", profile, address];
}

/** Ends what may have ended already. */
function tryTo(kill: () => void): void {
  try {
    kill();
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Removes a profile that the browser's helpers may still be writing to for a moment. */
async function removeSoon(folder: string): Promise<void> {
  for (let tries = 50;; tries--) {
    try {
      return await Deno.remove(folder, { recursive: true });
    } catch (error) {
      if (tries === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
