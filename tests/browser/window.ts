/**
 * One browser for visit after visit, since to start one takes it seconds. Between two of them it waits at a door of ours, whose
 * site is another than that of the pages: so each page has a process of its own, and nothing of the last one's.
 */

import { type Browser, type BrowserName, openBrowser } from "./browsers.ts";

/** A browser that goes where it is sent. */
export interface Window {
  /** Sends it to an address; starts it where it does not run. Resolves to why it ended, if it ever does. */
  readonly show: (address: string) => Promise<{ readonly ended: Promise<number> }>;
  /** Where a page goes once its visit is over. */
  readonly door: string;
  /** Waits for it to be back at the door; one that hangs is ended, and started anew for the next visit. */
  readonly back: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/** A page may take this long to go back to the door, in ms. */
const BACK_MS = 5000;

/** Makes a window, without a browser as yet. */
export function createWindow(name: BrowserName): Window {
  let browser: Browser | null = null;
  /** Who waits at the door: it is answered with the address that it goes to. */
  let atDoor = Promise.withResolvers<(address: string) => void>();
  const closing = new AbortController();
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {}, signal: closing.signal },
    ({ url }) => {
      if (new URL(url).pathname !== "/next") {
        return new Response(DOOR, { headers: { "content-type": "text/html" } });
      }
      const { promise, resolve } = Promise.withResolvers<string>();
      atDoor.resolve(resolve);
      return promise.then((address) => new Response(address));
    },
  );
  const door = `http://localhost:${server.addr.port}/`;
  const end = async (): Promise<void> => {
    const ending = browser;
    browser = null;
    await ending?.close();
    atDoor = Promise.withResolvers();
  };
  return {
    door,
    show: async (address) => {
      browser ??= await openBrowser(name, door);
      const { ended } = browser;
      const send = await Promise.race([atDoor.promise, ended]);
      if (typeof send === "number") return { ended };
      atDoor = Promise.withResolvers();
      send(address);
      return { ended };
    },
    back: async () => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<"late">((resolve) => {
        timer = setTimeout(() => resolve("late"), BACK_MS);
      });
      const how = await Promise.race([atDoor.promise, browser?.ended, late]);
      clearTimeout(timer);
      if (typeof how !== "function") await end();
    },
    close: async () => {
      await end();
      closing.abort(); // Who waits at the door waits on.
      await server.finished;
    },
  };
}

const DOOR =
  `<!doctype html><meta charset="utf-8"><title>syncbn</title><link rel="icon" href="data:,">
<script type="module">location.replace(await (await fetch("/next")).text())</script>`;
