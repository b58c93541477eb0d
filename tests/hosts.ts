/**
 * Two hosts on one machine: network namespaces with names of their own, joined by a cable of their own, and nothing
 * else in reach. They are gone afterwards, with every socket on them.
 */

import { demanded } from "./demanded.ts";

/** Two hosts. */
export interface Hosts {
  /** Their addresses; a launcher runs on the first. */
  readonly addresses: readonly [string, string];
  /** The addresses' network. */
  readonly network: string;
  /** The name of the network interface on both. */
  readonly link: string;
  /** Takes the place of ssh: `agent [options] address command...` runs a command on the second host. */
  readonly agent: string;
  /** Makes a command one that runs on the first host. */
  readonly onFirst: (command: readonly string[]) => readonly string[];
  /** Bytes that the first host has sent over the cable. */
  readonly sent: () => Promise<number>;
  /** Takes both away. */
  readonly remove: () => Promise<void>;
}

const LINK = "sync0";

/** Whether hosts can be made here: by root on Linux with iproute2 and util-linux; a run that promises them must. */
export async function canMakeHosts(): Promise<boolean> {
  if (demanded("hosts")) return true;
  try {
    const hosts = await makeHosts();
    await hosts.remove();
    return true;
  } catch {
    return false;
  }
}

/** Makes two hosts. Throws where this machine does not let us. */
export async function makeHosts(): Promise<Hosts> {
  const id = crypto.randomUUID().slice(0, 8);
  const names = [`syncbn-${id}-a`, `syncbn-${id}-b`] as const;
  const third = Number.parseInt(id.slice(0, 2), 16);
  const network = `10.214.${third}.0/30`;
  const addresses = [`10.214.${third}.1`, `10.214.${third}.2`] as const;
  const folder = await Deno.makeTempDir({ prefix: "syncbn_hosts_" });
  const remove = async () => {
    for (const name of names) await execute(["ip", "netns", "del", name]).catch(() => "");
    await Deno.remove(folder, { recursive: true });
  };
  try {
    for (const name of names) await execute(["ip", "netns", "add", name]);
    const cable = ["type", "veth", "peer", "name", LINK, "netns", names[1]];
    await execute(["ip", "link", "add", LINK, "netns", names[0], ...cable]);
    for (const [i, name] of names.entries()) {
      await execute(["ip", "-n", name, "addr", "add", `${addresses[i]}/30`, "dev", LINK]);
      await execute(["ip", "-n", name, "link", "set", "lo", "up"]);
      await execute(["ip", "-n", name, "link", "set", LINK, "up"]);
    }
    // The kernel takes up to a second to say that a cable is plugged in at both ends.
    for (const name of names) await connected(name);
    const agent = `${folder}/agent`;
    await Deno.writeTextFile(agent, agentOf(names[1]), { mode: 0o700 });
    return {
      addresses,
      network,
      link: LINK,
      agent,
      onFirst: (command) => enter(names[0], command),
      sent: async () => {
        const counters = await execute([
          ...["ip", "netns", "exec", names[0]],
          ...["cat", "/proc/net/dev"],
        ]);
        const line = counters.split("\n").find((text) => text.includes(`${LINK}:`)) ?? "";
        return Number(line.trim().split(/\s+/)[9]);
      },
      remove,
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function connected(name: string): Promise<void> {
  for (let i = 0; i < 100; i++) {
    const links = await execute(["ip", "-n", name, "-br", "link", "show", LINK]);
    if (/\sUP\s/.test(links)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the cable of ${name} is not connected`);
}

/** A command in a namespace, under a host name of its own: launchers tell hosts apart by their names. */
function enter(name: string, command: readonly string[]): readonly string[] {
  const script = 'hostname "$0" && exec "$@"';
  return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", script, name, ...command];
}

function agentOf(name: string): string {
  const [command, ...args] = enter(name, []);
  const words = [command, ...args].map((word) => `'${word}'`).join(" ");
  return [
    "#!/bin/sh",
    "# Options of ssh, then the host, which is always the other one; the rest is for a shell, as with ssh.",
    'while [ "${1#-}" != "$1" ]; do shift; done',
    "shift",
    `exec ${words} sh -c "$*"`,
    "",
  ].join("\n");
}

async function execute([command, ...args]: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, stdin: "null" })
    .output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (success) return text(stdout);
  throw new Error(`${command} ${args.join(" ")}: ${text(stderr)}`);
}
