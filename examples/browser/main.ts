/**
 * `deno task page:browser`: builds the page "k replicas equal one", and serves it on loopback.
 *
 * @module
 */

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { integer, on, type Program } from "../command_line.ts";
import { runProgram } from "../run_program.ts";
import { buildPage } from "./build.ts";
import { serveFiles } from "./serve.ts";

/** What the flags say. */
interface PageFlags {
  readonly build: boolean;
  readonly port: number;
}

const FOLDER = fileURLToPath(new URL("../../out/page/", import.meta.url));

const PAGE: Program<PageFlags> = {
  usage: "deno task page:browser",
  action: "show the page",
  about: `\
Builds the page on which replicas in Web Workers learn what one process learns, and serves it on
127.0.0.1 with the headers by which workers may share memory, until Ctrl-C.`,
  flags: {
    build: on("write its files into out/page for any host, and serve nothing"),
    port: integer({ from: 0, to: 65535, usual: 8000, help: "where to listen; 0 is any free port" }),
  },
  notes: `\
A host that sends no headers will do: a service worker of the page's own adds them, and where there
is none the replicas exchange messages.

Exits with 2 for a wrong flag, without a permission, or if the port is taken.`,
};

async function main({ build, port }: PageFlags): Promise<number> {
  const folder = resolve(FOLDER);
  const names = await buildPage(folder);
  if (build) {
    console.log(`${folder}: ${names.join(", ")}`);
    return 0;
  }
  const server = serveFiles(folder, names, port);
  console.log(`http://127.0.0.1:${server.addr.port}/ shows the page; Ctrl-C ends it`);
  await server.finished;
  return 0;
}

if (import.meta.main) Deno.exit(await runProgram(PAGE, Deno.args, main));
