/** What a person does with the page, and sees of it. */

import assert from "node:assert/strict";
import { type Message, openDriven, type Session } from "./devtools.ts";

/** A window, as a person has it. */
export interface Look {
  readonly width: number;
  readonly height: number;
  readonly dark: boolean;
}

/** Somebody in front of the page. */
export interface Person {
  readonly page: Session;
  /** Workers that run, in the order in which they have begun. */
  readonly workers: () => readonly Session[];
  /** Opens an address and waits until the page has loaded its images. */
  readonly open: (address: string) => Promise<void>;
  readonly reload: () => Promise<void>;
  /** The value of an expression on the page. */
  readonly value: <T>(expression: string) => Promise<T>;
  /** The text of an element. */
  readonly text: (id: string) => Promise<string>;
  /** Clicks the middle of an element, with the mouse. */
  readonly click: (id: string) => Promise<void>;
  /** Presses a key, so many times. */
  readonly press: (key: string, times?: number) => Promise<void>;
  /** Which element has the focus. */
  readonly focused: () => Promise<string>;
  readonly resize: (look: Look) => Promise<void>;
  /** Waits until an element's text is as it is wanted. */
  readonly sees: (id: string, wanted: RegExp) => Promise<string>;
  readonly screenshot: (file: string) => Promise<void>;
  /** What a browser's console has said, and addresses that were asked for anywhere else than on the page's host. */
  readonly complaints: () => readonly string[];
}

/** How long the page may take for what it is waited for, in ms: much longer than it does. */
export const PATIENCE_MS = 120_000;

const KEYS: Readonly<Record<string, Message>> = {
  Tab: { key: "Tab", code: "Tab", windowsVirtualKeyCode: 9 },
  Enter: { key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: "\r" },
  ArrowLeft: { key: "ArrowLeft", code: "ArrowLeft", windowsVirtualKeyCode: 37 },
  ArrowRight: { key: "ArrowRight", code: "ArrowRight", windowsVirtualKeyCode: 39 },
  Home: { key: "Home", code: "Home", windowsVirtualKeyCode: 36 },
};

/** A desktop. */
export const DESKTOP: Look = { width: 1280, height: 900, dark: false };

/** Lets somebody use a browser, and fails where the console has complained, or anything was asked of other hosts. */
export async function asPerson(
  body: (person: Person) => Promise<void>,
  flags: readonly string[] = [],
): Promise<void> {
  const driven = await openDriven(flags);
  const { page } = driven;
  const workers = new Map<string, Session>();
  const complaints: string[] = [];
  let host = "";
  page.on("Target.attachedToTarget", ({ sessionId, targetInfo }) => {
    const worker = driven.session(sessionId);
    if (targetInfo.type === "worker") workers.set(sessionId, worker);
    worker.call("Runtime.runIfWaitingForDebugger").catch(() => {}); // It may have ended already.
  });
  page.on("Target.detachedFromTarget", ({ sessionId }) => workers.delete(sessionId));
  page.on(
    "Runtime.consoleAPICalled",
    ({ type, args }) =>
      complaints.push(
        `console.${type}: ${args.map((arg: Message) => arg.value ?? arg.description)}`,
      ),
  );
  page.on(
    "Runtime.exceptionThrown",
    ({ exceptionDetails: { text, exception } }) =>
      complaints.push(`${text} ${exception?.description}`),
  );
  page.on("Log.entryAdded", ({ entry }) => complaints.push(`${entry.text} ${entry.url ?? ""}`));
  page.on("Network.requestWillBeSent", ({ request: { url } }) => {
    if (!/^(data|blob):/.test(url) && new URL(url).host !== host) {
      complaints.push(`request: ${url}`);
    }
  });

  const value = async <T>(expression: string): Promise<T> => {
    const { result, exceptionDetails } = await page.call("Runtime.evaluate", {
      ...{ expression, awaitPromise: true, returnByValue: true },
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description);
    return result.value;
  };
  const text = (id: string) => value<string>(`document.getElementById("${id}")?.textContent ?? ""`);
  const sees = async (id: string, wanted: RegExp): Promise<string> => {
    for (const until = Date.now() + PATIENCE_MS;;) {
      // While a page loads, there may be nothing to ask.
      const now = await text(id).catch(() => "");
      if (wanted.test(now)) return now;
      assert(Date.now() < until, `#${id} must be like ${wanted}: it is "${now}"`);
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  };
  const ready = async (): Promise<void> => {
    await sees("moment", /images$/);
  };
  const resize = async ({ width, height, dark }: Look): Promise<void> => {
    const mobile = width < 500;
    const size = { width, height, mobile, deviceScaleFactor: 1 };
    await page.call("Emulation.setDeviceMetricsOverride", size);
    const scheme = { name: "prefers-color-scheme", value: dark ? "dark" : "light" };
    await page.call("Emulation.setEmulatedMedia", { features: [scheme] });
    // Two frames: what the page draws anew is there.
    await value("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))");
  };
  const person: Person = {
    ...{ page, value, text, sees, resize },
    workers: () => [...workers.values()],
    open: async (address) => {
      host = new URL(address).host;
      await page.call("Page.navigate", { url: address });
      await ready();
    },
    reload: async () => {
      await page.call("Runtime.evaluate", { expression: "window.before = true" });
      await page.call("Page.reload");
      for (const until = Date.now() + PATIENCE_MS;;) {
        if (await value("!window.before").catch(() => false)) break;
        assert(Date.now() < until, "the page must load again");
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      await ready();
    },
    click: async (id) => {
      const [x, y] = await value<number[]>(`(() => {
        const found = document.getElementById("${id}");
        found.scrollIntoView({ block: "center", behavior: "instant" });
        const { left, top, width, height } = found.getBoundingClientRect();
        return [left + width / 2, top + height / 2];
      })()`);
      for (const type of ["mousePressed", "mouseReleased"]) {
        const button = { button: "left", clickCount: 1 };
        await page.call("Input.dispatchMouseEvent", { type, x, y, ...button });
      }
    },
    press: async (key, times = 1) => {
      for (let i = 0; i < times; i++) {
        await page.call("Input.dispatchKeyEvent", { type: "keyDown", ...KEYS[key] });
        await page.call("Input.dispatchKeyEvent", { type: "keyUp", ...KEYS[key] });
      }
    },
    focused: () => value("document.activeElement?.id ?? ''"),
    screenshot: async (file) => {
      const { data } = await page.call("Page.captureScreenshot", { captureBeyondViewport: true });
      await Deno.writeFile(file, Uint8Array.fromBase64(data));
    },
    complaints: () => complaints,
  };
  try {
    for (const domain of ["Runtime", "Log", "Page", "Network"]) await page.call(`${domain}.enable`);
    const attach = { autoAttach: true, waitForDebuggerOnStart: true, flatten: true };
    await page.call("Target.setAutoAttach", attach);
    await resize(DESKTOP);
    await body(person);
  } finally {
    await driven.close();
  }
  assert.deepEqual(complaints, []);
}
