/**
 * Replicas on several machines without MPI: a relay that every rank reaches by a WebSocket (`relay_link.ts` is a rank's end).
 *
 * It collects one array of each rank and sends all of them to all: worldSize times what a rank sends. It trusts whoever
 * connects and encrypts nothing: keep it inside a network of yours, or behind a proxy that asks and encrypts.
 *
 * An all-reduce is two gathers, a description and the values. Where an array is longer than about 1 KB, as the description
 * is, Deno 2.9 writes it in two parts, and the second waits for the acknowledgement of the first: 45 ms on loopback, where
 * short arrays take 0.1.
 *
 * @module
 */

import { integer, type Program, text } from "./command_line.ts";
import { runProgram } from "./run_program.ts";
import { startError } from "./start_error.ts";

/** A relay at work. */
export interface Relay extends AsyncDisposable {
  /** Where ranks connect: `ws://host:port`. */
  readonly url: string;
}

/** Where a relay listens, and how long it waits. */
export interface RelayOptions {
  /** The address; this machine alone by default. */
  readonly hostname?: string;
  /** The port; any free one by default. */
  readonly port?: number;
  /** How long the first rank to send in a round waits for the others, in ms; 60,000 by default. */
  readonly timeoutMs?: number;
}

/**
 * Starts a relay for one run; once a rank has left, the run is over for all.
 *
 * @param worldSize number of ranks
 * @param options where to listen, and how long to wait
 * @returns the relay; disposing it ends all connections
 */
export function serveRelay(worldSize: number, options: RelayOptions = {}): Relay {
  const { hostname = "127.0.0.1", port = 0, timeoutMs = 60_000 } = options;
  const sockets = new Map<number, WebSocket>();
  const round = new Map<number, Uint8Array<ArrayBuffer>>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const end = (code: string, ranks: readonly number[], why: string) => {
    clearTimeout(timer);
    for (const socket of sockets.values()) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ code, ranks, why }));
      socket.close();
    }
  };
  const late = () => {
    const missing = [...Array(worldSize).keys()].filter((rank) => !round.has(rank));
    end("deadline", missing, `rank ${missing.join(", ")} did not arrive within ${timeoutMs} ms`);
  };
  const receive = (rank: number, data: string | ArrayBuffer) => {
    if (typeof data === "string") {
      return end("cancelled", [rank], `rank ${rank} cancelled it: ${data}`);
    }
    if (round.size === 0) timer = setTimeout(late, timeoutMs);
    round.set(rank, new Uint8Array(data));
    if (round.size < worldSize) return;
    clearTimeout(timer);
    const parts = [...round].sort(([a], [b]) => a - b).map(([, part]) => part);
    round.clear();
    const { length } = parts[0];
    if (parts.some((part) => part.length !== length)) {
      return end("disagreement", [...sockets.keys()].sort(), "ranks sent arrays of other lengths");
    }
    const all = new Uint8Array(length * worldSize);
    parts.forEach((part, r) => all.set(part, r * length));
    for (const socket of sockets.values()) socket.send(all);
  };
  const server = Deno.serve({ hostname, port, onListen: () => {} }, (request) => {
    const rank = Number(new URL(request.url).searchParams.get("rank") ?? NaN);
    const isFree = Number.isInteger(rank) && rank >= 0 && rank < worldSize && !sockets.has(rank);
    if (!isFree) return new Response(`No place for this rank of ${worldSize}\n`, { status: 409 });
    const { socket, response } = Deno.upgradeWebSocket(request);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => receive(rank, data);
    socket.onclose = () => end("rankFailed", [rank], `rank ${rank} has left`);
    sockets.set(rank, socket);
    return response;
  });
  const close = async () => {
    end("rankFailed", [], "the relay was closed");
    await server.shutdown();
  };
  return { url: `ws://${hostname}:${server.addr.port}`, [Symbol.asyncDispose]: close };
}

/** What the flags say. */
interface RelayFlags {
  readonly ranks: number | undefined;
  readonly hostname: string;
  readonly port: number;
}

const RELAY: Program<RelayFlags> = {
  usage: "deno run --allow-net examples/relay.ts",
  action: "relay",
  about: "Relays arrays between the ranks of one training run, until one of them leaves.",
  flags: {
    ranks: integer({ from: 1, to: 9999, usual: undefined, help: "number of ranks" }),
    hostname: text({
      ...{ takes: "NAME", usual: "0.0.0.0" },
      help: "address to listen at; 0.0.0.0 is all of this machine's",
    }),
    port: integer({ from: 0, to: 65_535, usual: 8000, help: "port to listen at; 0 is any" }),
  },
};

function main({ ranks, hostname, port }: RelayFlags): number {
  if (ranks === undefined) {
    throw startError("--ranks must tell how many there are: it has none (see --help)");
  }
  console.log(`${ranks} ranks may join at ${serveRelay(ranks, { hostname, port }).url}`);
  return 0;
}

// Deno.exit() would end the relay.
if (import.meta.main) Deno.exitCode = await runProgram(RELAY, Deno.args, main);
