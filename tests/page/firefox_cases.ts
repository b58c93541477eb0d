/** The page in Firefox, by WebDriver BiDi: it opens, trains, stops, and complains of nothing. */

import assert from "node:assert/strict";
import { hasBrowser, openBrowser } from "../browser/browsers.ts";
import { served, SHORT } from "./served.ts";

const ignore = !await hasBrowser("firefox");
/** How long Firefox may take for anything, in ms. */
const PATIENCE_MS = 120_000;

// deno-lint-ignore no-explicit-any
type Message = Readonly<Record<string, any>>;

Deno.test({
  name: "page: Firefox trains over shared memory, syncbn is one process, and it stops",
  ignore,
  fn: () =>
    served(async (address) => {
      const firefox = await openBrowser("firefox", "about:blank", ["--remote-debugging-port=0"]);
      try {
        await using driven = await connect(firefox.profile);
        const { call, complaints } = driven;
        await call("session.new", { capabilities: {} });
        await call("session.subscribe", { events: ["log.entryAdded"] });
        const { contexts: [{ context }] } = await call("browsingContext.getTree");
        const value = async (expression: string): Promise<string> => {
          const { result } = await call("script.evaluate", {
            ...{ expression, target: { context }, awaitPromise: true },
          });
          return String(result.value);
        };
        const sees = async (id: string, wanted: RegExp): Promise<string> => {
          for (const until = Date.now() + PATIENCE_MS;;) {
            const text = await value(`document.getElementById("${id}")?.textContent`);
            if (wanted.test(text)) return text;
            assert(Date.now() < until, `#${id} must be like ${wanted}: it is "${text}"`);
            await new Promise((resolve) => setTimeout(resolve, 100));
          }
        };
        const url = `${address}?${SHORT}&device=wasm`;
        await call("browsingContext.navigate", { context, url, wait: "complete" });
        await sees("moment", /^before training/);
        assert.equal(await value("crossOriginIsolated"), "true");
        await value(`document.getElementById("train").click()`);
        await sees("status", /^Training …$/);
        await sees("progress-text", /^step [3-9]/);
        await sees("sync-distance", /^\d\.\d × 10⁻[⁶⁷⁸]$/);
        await sees("local-distance", /^\d\.\d × 10⁻[¹²³]$/);
        await sees("one-accuracy", /^\d+\.\d %$/);
        await value(`document.getElementById("train").click()`);
        await sees("status", /^Stopped at step \d+\./);
        assert.deepEqual(complaints, []);
      } finally {
        await firefox.close();
      }
    }),
});

/** Firefox writes into its profile where it listens. */
async function connect(profile: string) {
  const until = Date.now() + PATIENCE_MS;
  let listens: Message | undefined;
  while (!listens) {
    const text = await Deno.readTextFile(`${profile}/WebDriverBiDiServer.json`).catch(() => "");
    if (text.endsWith("}")) listens = JSON.parse(text) as Message;
    assert(Date.now() < until, "Firefox has not opened its port for WebDriver BiDi");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const socket = new WebSocket(`ws://${listens.ws_host}:${listens.ws_port}/session`);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("Firefox takes no connection for WebDriver BiDi"));
  });
  const waiting = new Map<number, ReturnType<typeof Promise.withResolvers<Message>>>();
  const complaints: string[] = [];
  socket.onmessage = ({ data }) => {
    const { id, type, result, error, message, method, params } = JSON.parse(data);
    if (method === "log.entryAdded") complaints.push(`${params.level}: ${params.text}`);
    if (type === "success") waiting.get(id)?.resolve(result);
    if (type === "error") waiting.get(id)?.reject(new Error(`${error}: ${message}`));
  };
  let last = 0;
  return {
    complaints,
    call: (method: string, params: Message = {}): Promise<Message> => {
      const answer = Promise.withResolvers<Message>();
      waiting.set(++last, answer);
      socket.send(JSON.stringify({ id: last, method, params }));
      return answer.promise;
    },
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((resolve) => socket.onclose = resolve);
      socket.close();
      await closed;
    },
  };
}
