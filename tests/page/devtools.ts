/** Chromium's DevTools protocol: commands, what they return, and events of a page and of its workers. */

import { type Browser, openBrowser } from "../browser/browsers.ts";

/** What a command returns, and what an event tells. */
// deno-lint-ignore no-explicit-any
export type Message = Readonly<Record<string, any>>;

/** One end of a connection: a page, or a worker. */
export interface Session {
  /** Calls a command; rejects with what the browser says is wrong. */
  readonly call: (method: string, params?: Message) => Promise<Message>;
  /** Hears an event from now on. */
  readonly on: (method: string, hear: (params: Message) => void) => void;
}

/** Chromium with one page, driven by this process. */
export interface Driven {
  readonly page: Session;
  /** A worker's, by the `sessionId` of Target.attachedToTarget. */
  readonly session: (id: string) => Session;
  readonly close: () => Promise<void>;
}

/** A call that has no answer yet. */
interface Waiting extends ReturnType<typeof Promise.withResolvers<Message>> {
  readonly session: string | undefined;
}

const START_MS = 30_000;

/** Starts Chromium on an empty page, with flags of its own. */
export async function openDriven(flags: readonly string[] = []): Promise<Driven> {
  const browser = await openBrowser("chromium", "about:blank", [
    "--remote-debugging-port=0",
    ...flags,
  ]);
  try {
    const port = await portOf(browser);
    const targets = await (await fetch(`http://127.0.0.1:${port}/json/list`)).json();
    const page = targets.find(({ type }: Message) => type === "page");
    return await connect(page.webSocketDebuggerUrl, browser);
  } catch (error) {
    await browser.close();
    throw error;
  }
}

/** The browser writes the port that it has taken into its profile. */
async function portOf({ profile, ended }: Browser): Promise<string> {
  let over = false;
  ended.then(() => over = true);
  for (const until = Date.now() + START_MS; Date.now() < until && !over;) {
    const text = await Deno.readTextFile(`${profile}/DevToolsActivePort`).catch(() => "");
    const [port, path] = text.split("\n");
    if (path) return port;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("Chromium has not opened its port for DevTools");
}

async function connect(address: string, browser: Browser): Promise<Driven> {
  const socket = new WebSocket(address);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("Chromium does not take a connection for DevTools"));
  });
  const waiting = new Map<number, Waiting>();
  const heard = new Map<string, ((params: Message) => void)[]>();
  let last = 0;
  socket.onmessage = ({ data }) => {
    const { id, result, error, method, params, sessionId = "" } = JSON.parse(data);
    if (method === "Target.detachedFromTarget") {
      // What ends answers nothing more.
      for (const [call, { session, reject }] of waiting) {
        if (session !== params.sessionId) continue;
        waiting.delete(call);
        reject(new Error("The worker has ended"));
      }
    }
    if (id === undefined) {
      for (const hear of heard.get(`${sessionId} ${method}`) ?? []) hear(params);
      return;
    }
    const call = waiting.get(id);
    waiting.delete(id);
    if (error) call?.reject(new Error(`${error.message} ${error.data ?? ""}`));
    else call?.resolve(result);
  };
  const closed = new Promise<void>((resolve) => {
    socket.onclose = () => {
      for (const { reject } of waiting.values()) reject(new Error("Chromium has ended"));
      waiting.clear();
      resolve();
    };
  });
  const session = (sessionId?: string): Session => ({
    call: (method, params = {}) => {
      const call = Promise.withResolvers<Message>();
      const id = ++last;
      waiting.set(id, { ...call, session: sessionId });
      socket.send(JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) }));
      return call.promise;
    },
    on: (method, hear) => {
      const key = `${sessionId ?? ""} ${method}`;
      heard.set(key, [...heard.get(key) ?? [], hear]);
    },
  });
  const close = async (): Promise<void> => {
    socket.close();
    await browser.close();
    await closed;
  };
  return { page: session(), session, close };
}
