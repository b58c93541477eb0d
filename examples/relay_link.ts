/**
 * A rank's end of the relay in `relay.ts`: an all-gather, of which `fromAllGather` makes a group. Runs in browsers too.
 *
 * @module
 */

import { CollectiveError, type CollectiveErrorCode, type CollectiveOptions } from "../mod.ts";

/** A rank among others. */
export interface RelayPlace {
  /** This rank's number, 0 .. worldSize - 1. */
  readonly rank: number;
  /** Number of ranks. */
  readonly worldSize: number;
  /** How long a call waits for the relay, in ms, which itself says who is late; 120,000 by default. */
  readonly timeoutMs?: number;
}

/** A rank's end of a relay. */
export interface RelayLink extends AsyncDisposable {
  /** What `fromAllGather` takes; one call at a time, as that calls it. */
  readonly allGather: (
    local: Float64Array,
    options?: CollectiveOptions,
  ) => Promise<readonly Float64Array[]>;
}

/**
 * Connects a rank to a relay; the others may come later.
 *
 * @param url the relay's, `ws://host:port`
 * @param place which rank this is
 * @returns its end; disposing it ends the run for all
 * @throws (rejects with) CollectiveError where there is no relay, or no such place at it
 */
export async function joinRelay(
  url: string,
  { rank, worldSize, timeoutMs = 120_000 }: RelayPlace,
): Promise<RelayLink> {
  const socket = new WebSocket(`${url}/?rank=${rank}`);
  socket.binaryType = "arraybuffer";
  const opened = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  let waiting: PromiseWithResolvers<ArrayBuffer> | undefined;
  let over: CollectiveError | undefined;
  const end = (code: CollectiveErrorCode, ranks: readonly number[], why: string) => {
    over ??= new CollectiveError(`Cannot go on with the relay as ${why}`, code, ranks);
    opened.reject(over);
    waiting?.reject(over);
    socket.close();
  };
  socket.onopen = () => opened.resolve();
  socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
    if (typeof data !== "string") return waiting?.resolve(data);
    // What ended the run, which is the same on every rank.
    const { code, ranks, why } = JSON.parse(data);
    end(code, ranks, why);
  };
  socket.onclose = () => {
    end("rankFailed", [], `the connection of rank ${rank} is gone, or its place was not free`);
    closed.resolve();
  };
  await opened.promise;

  const exchange = async (local: Float64Array): Promise<readonly Float64Array[]> => {
    const { byteLength, length } = local;
    waiting = Promise.withResolvers();
    socket.send(local.slice());
    const data = await waiting.promise;
    if (data.byteLength !== byteLength * worldSize) {
      end("disagreement", [], `the relay is not one of ${worldSize} ranks`);
      throw over;
    }
    return Array.from(
      { length: worldSize },
      (_, other) => new Float64Array(data, other * byteLength, length),
    );
  };
  const allGather: RelayLink["allGather"] = async (local, { signal } = {}) => {
    if (over) throw over;
    // By way of the relay, so that all ranks get the same error.
    const cancel = () => socket.send(String(signal?.reason?.message ?? signal?.reason));
    const silent = () => end("deadline", [], `the relay did not answer within ${timeoutMs} ms`);
    const timer = setTimeout(silent, timeoutMs);
    signal?.addEventListener("abort", cancel);
    try {
      if (signal?.aborted) cancel();
      return await exchange(local);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
  };
  const close = async () => {
    socket.close();
    await closed.promise;
  };
  return { allGather, [Symbol.asyncDispose]: close };
}
