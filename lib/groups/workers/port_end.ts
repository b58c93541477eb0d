/** A rank's end of its port to the hub. */

import { alarmIn } from "../../patience.ts";
import { conclude, copyContribution } from "../contributions.ts";
import { cannotBlock, type Engine, type Request } from "../engine.ts";
import { combineError, fromPlain, messageOf, type PlainFailure, takenBefore } from "../failures.ts";
import type { LocalRequest } from "../rendezvous.ts";
import { isTaken, take, type ToHub, type ToRank } from "./port_messages.ts";
import { type Move, reduceInPieces } from "./port_pieces.ts";

/** One rank's end of its port. */
export interface PortEnd {
  readonly engine: Engine;
  /** Tells that this rank will make no further call. */
  readonly leave: (failure?: { readonly cause: unknown }) => void;
}

/** What a rank and the hub agree on. */
export interface PortOptions {
  readonly rank: number;
  readonly worldSize: number;
  /** The hub's deadline, in ms. */
  readonly timeoutMs: number;
  /** Values that a rank brings at once; longer arrays that are reduced travel in pieces. */
  readonly capacity: number;
}

/** How much later than its deadline the hub's answer may come, before a rank asks whether it is there. */
const SLACK_MS = 800;
const NOTHING = new Float64Array(0);

const NO_MEMORY = cannotBlock(
  "the ranks must share memory: messages over ports do not come while a thread is held up; await allReduce()",
);

type Answer = Extract<ToRank, { readonly kind: "values" | "group" | "failure" }>;

/** Opens a rank's end. */
export function portEnd(
  port: MessagePort,
  { rank, worldSize, timeoutMs, capacity }: PortOptions,
): PortEnd {
  if (isTaken(port)) throw takenBefore(rank);
  take(port);
  const waiting = new Map<number, (answer: Answer) => void>();
  let ids = 0;
  /** Messages that have come from the hub. */
  let news = 0;
  /** Why nothing will be answered any more. */
  let gone: PlainFailure | null = null;
  const send = (message: ToHub, transfer: Transferable[] = []) =>
    port.postMessage(message, transfer);
  const ends = new FinalizationRegistry((group: number) => send({ kind: "drop", group }));
  port.onmessage = ({ data }: MessageEvent<ToRank>) => {
    news++;
    switch (data.kind) {
      case "closed":
        end("Cannot complete the call as whoever made the seats has closed them");
        return port.close();
      case "taken":
        return end(takenBefore(rank).message);
      case "alive":
        return;
      default:
        waiting.get(data.id)?.(data);
        waiting.delete(data.id);
    }
  };
  send({ kind: "take" });

  /** The hub is gone: what is pending, and all that comes later, rejects. */
  function end(message: string): void {
    gone ??= { message, code: "cancelled", ranks: [] };
    for (const [id, settle] of waiting) settle({ kind: "failure", id, failure: gone });
    waiting.clear();
  }

  /** Waits for the hub, which has a deadline of its own; then asks it, and takes it for gone where it says nothing. */
  function expectAnswer(): () => void {
    let giveUp = () => {};
    const expect = (): void => {
      giveUp = alarmIn(timeoutMs + SLACK_MS, () => {
        const before = news;
        send({ kind: "ask" });
        giveUp = alarmIn(SLACK_MS, () => {
          if (news > before) return expect();
          const ms = timeoutMs + SLACK_MS;
          end(`Cannot complete the call as its thread has not answered within ${ms} ms`);
        });
      });
    };
    expect();
    return () => giveUp();
  }

  /** Has the hub make a call; takes its place in line at once. */
  function call(kind: "call" | "split", group: number, request: LocalRequest): Promise<Answered> {
    const id = ++ids;
    const { name, flow, values, signal } = request;
    if (gone) {
      Promise.resolve(values).catch(() => {}); // Nobody will look at them any more.
      return Promise.reject(fromPlain(gone));
    }
    send({ kind, id, group, name, flow: flow.kind === "reduce" ? { kind: "gather" } : flow });
    const cancel = () => send({ kind: "cancel", id, reason: messageOf(signal?.reason) });
    if (signal?.aborted) cancel();
    else signal?.addEventListener("abort", cancel, { once: true });
    let detail = "";
    let own: Float64Array = NOTHING;
    let failure: { readonly cause: unknown } | undefined;
    const bring = (brought: Float64Array): void => {
      try {
        const copy = copyContribution(brought, name);
        detail = request.detail(copy);
        const inPieces = flow.kind === "reduce" && copy.length > capacity;
        if (inPieces) own = copy;
        const values = inPieces ? NOTHING : copy;
        send({ kind: "values", id, values, detail, inPieces }, inPieces ? [] : [copy.buffer]);
      } catch (cause) {
        fail(cause);
      }
    };
    const fail = (cause: unknown): void => {
      failure = { cause };
      send({ kind: "failure", id, reason: messageOf(cause) });
    };
    // At once where it can be: the caller may write to its array after the call.
    if (values instanceof Float64Array) bring(values);
    else Promise.resolve(values).then(bring, fail);
    return new Promise((resolve, reject) => {
      const giveUp = expectAnswer();
      waiting.set(id, (answer) => {
        giveUp();
        signal?.removeEventListener("abort", cancel);
        if (answer.kind !== "failure") return resolve({ answer, detail, own });
        const { failure: plain } = answer;
        const cause = plain.code === "cancelled" ? signal?.reason : failure?.cause;
        reject(fromPlain(plain, { cause }));
      });
    });
  }

  function open(group: number, rank: number, worldSize: number): Engine {
    let calls = 0;
    const engine: Engine = {
      rank,
      worldSize,
      meet: async (request) => {
        const number = ++calls;
        const { answer, detail, own } = await call("call", group, request);
        const { flow, name, signal } = request;
        const text = `${name} ${detail}`;
        const values = answer.kind === "values" ? answer.values : [];
        if (flow.kind !== "reduce") return values;
        const fail = (cause: unknown, reason = messageOf(cause)) =>
          combineError(number, text, worldSize, reason, cause);
        if (answer.kind === "group") {
          const move: Move = async (flow, values) => {
            const request = { name, detail: () => "in pieces", values, flow, signal };
            const { answer: moved } = await call("call", answer.group, request);
            return moved.kind === "values" ? moved.values : [];
          };
          try {
            const { combine } = flow;
            return [await reduceInPieces({ rank, worldSize, capacity, combine, move, fail }, own)];
          } finally {
            send({ kind: "drop", group: answer.group });
          }
        }
        try {
          return conclude(flow, values)(rank);
        } catch (cause) {
          throw fail(cause);
        }
      },
      meetNow: NO_MEMORY,
      split: async (request: Request) => {
        calls++;
        const { answer } = await call("split", group, request);
        if (answer.kind !== "group") throw new TypeError("Cannot split: the hub sent no group");
        return open(answer.group, answer.rank, answer.worldSize);
      },
    };
    ends.register(engine, group);
    return engine;
  }

  return {
    engine: open(0, rank, worldSize),
    leave: (failure) => send({ kind: "leave", failure: failure ? messageOf(failure.cause) : null }),
  };
}

interface Answered {
  readonly answer: Extract<ToRank, { readonly kind: "values" | "group" }>;
  /** What else was compared, once the values were known. */
  readonly detail: string;
  /** A copy of the values, where they stayed here. */
  readonly own: Float64Array;
}
