/** The peers that come from npm: pinned in `npm/`, installed there on first use and used by nothing else. */

import { createRequire } from "node:module";
import { run } from "../ranks.ts";

export interface Packages {
  /** Loads a CommonJS module by its name, or its path within a package. */
  readonly load: (name: string) => unknown;
  readonly url: (path: string) => URL;
  readonly versions: Readonly<Record<string, string>>;
  /** Why something of theirs is not measured, in one line. */
  readonly reason: (error: unknown) => string;
}

const FOLDER = new URL("npm/", import.meta.url);
const INSTALLED = new URL("node_modules/.package-lock.json", FOLDER);

const SECONDS = 600;

/** Installs the packages unless they are there, and says so. */
export async function openPackages(
  { install }: { readonly install: boolean },
): Promise<Packages> {
  const pinned: { readonly dependencies: Readonly<Record<string, string>> } = JSON.parse(
    await Deno.readTextFile(new URL("package.json", FOLDER)),
  );
  const absence = !install || await Deno.stat(INSTALLED).then(() => true, () => false)
    ? "not installed"
    : await npmCi();
  const require = createRequire(new URL("package.json", FOLDER));
  return {
    load: (name) => require(name),
    url: (path) => new URL(`node_modules/${path}`, FOLDER),
    versions: pinned.dependencies,
    reason: (error) => {
      const { code, message } = error as { readonly code?: string; readonly message?: string };
      if (code === "MODULE_NOT_FOUND" || code === "ERR_MODULE_NOT_FOUND") return absence;
      return String(message ?? error).split("\n")[0];
    },
  };
}

/** Runs npm; no package's own scripts run, which would download more. Returns why a package may still be missing. */
async function npmCi(): Promise<string> {
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund"];
  console.error(`Installing the peers, pinned, into bench/peers/npm: npm ci ${flags.join(" ")}`);
  const folder = decodeURIComponent(FOLDER.pathname);
  return await run(["npm", "ci", "--prefix", folder, ...flags], SECONDS)
    .then(() => "not among what npm installed", ({ message }: Error) => `npm: ${message}`);
}
