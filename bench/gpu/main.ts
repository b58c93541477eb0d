/**
 * `deno task bench:gpu`: ours on a GPU against a plain copy by the same GPU, against jax-js and TensorFlow.js where they run on it and,
 * where a Python has PyTorch with CUDA, against SyncBatchNorm's kernels and F.batch_norm; checked against float64 first.
 */

import { DeviceError } from "../../mod.ts";
import { DAWN } from "../../tests/load_dawn.ts";
import { chosen, commandLine, integer } from "../command.ts";
import { jaxOnWebGpu } from "../peers/jax.ts";
import { openPackages } from "../peers/packages.ts";
import type { Library } from "../peers/subject.ts";
import { tfjs } from "../peers/tfjs.ts";
import { assertWritable, captionOf, writeSection } from "../report.ts";
import { gpuAtHand, openAdapter } from "./adapter.ts";
import { type Case, casesFor, titleOfCase } from "./cases.ts";
import type { MeasuredCase, MeasuredGpu, MeasuredRanks, PeerTimes } from "./measured.ts";
import { measureOurs } from "./ours.ts";
import { measurePeer } from "./peers.ts";
import { ranksInWorkers, ranksOfThread } from "./ranks.ts";
import { gpuChart, gpuSection } from "./section.ts";
import { startTorch } from "./torch.ts";

/** Where a bundle of a peer goes; ignored by git. */
const BUILT = new URL("../../out/gpu/", import.meta.url);
const GROUP_SHAPES: readonly (readonly number[])[] = [[32, 64, 56, 56], [32, 256, 14, 14]];

const HELP = `\
Times batch norm on this GPU against a plain copy and other libraries on the same GPU. On first use
it installs these from npm into bench/peers/npm/node_modules; a bundle of one goes to out/gpu. git
ignores both.

Usage: deno task bench:gpu [flags] [SHAPE...]

  SHAPE            only these, such as [32,64,56,56]
  --dawn           Dawn (npm:webgpu) instead of the runtime's own WebGPU
  --python PATH    a Python that may have PyTorch with CUDA (python3)
  --device NAME    what the adapter is called, where it does not say
  --quick N        so many rounds (7)
  --write          write the section of bench/README.md, and gpu.svg`;

const { has, value, positionals } = commandLine(HELP);
const [dawn, write] = [has("dawn"), has("write")];
const rounds = integer("--quick", value("quick", "7"));
if (write) await assertWritable("gpu");

/** Every peer that can compute a case; why one cannot goes to the absent. */
async function measurePeers(peers: readonly Library[], one: Case, absent: string[]) {
  const times: Record<string, PeerTimes> = {};
  for (const peer of peers) {
    try {
      times[peer.name] = await measurePeer(peer, one, rounds);
    } catch (error) {
      const [reason] = String((error as Error)?.message ?? error).split("\n");
      absent.push(`${peer.name} is not measured on ${titleOfCase(one)}: ${reason}`);
      console.error(absent.at(-1));
    }
  }
  return times;
}

async function run(): Promise<MeasuredGpu> {
  await using device = await openAdapter(dawn);
  const absent: string[] = [];
  await using torch = await startTorch(value("python", "python3")).catch(({ message }: Error) => {
    absent.push(`PyTorch is not measured: ${message}`);
    return null;
  });
  // Ours first: both look for the GPU in `navigator`.
  if (dawn) Object.defineProperty(navigator, "gpu", { value: await gpuAtHand(dawn) });
  const packages = await openPackages({ install: true });
  const candidates = [await jaxOnWebGpu(packages), await tfjs(packages, "webgpu", BUILT)];
  const peers = candidates.filter((one) => "open" in one);
  const { name, isFallbackAdapter: software, float16 } = device.info;
  const dtypes = float16 ? ["float32", "float16"] as const : ["float32"] as const;
  const cases = chosen(casesFor(software, dtypes), positionals, ({ batch }) => batch.shape);
  absent.push(
    ...(device.gpuDevice.features.has("timestamp-query")
      ? []
      : ["The GPU's own clock is not measured: the adapter has no timestamp-query"]),
    ...candidates.flatMap((one) =>
      "missing" in one ? [`${one.name} is not measured: ${one.missing}`] : []
    ),
  );
  const measured: MeasuredCase[] = [];
  for (const [i, one] of cases.entries()) {
    try {
      const ours = await measureOurs(device, one, rounds);
      const plain = one.dtype === "float32" && !one.fused;
      measured.push({
        ours,
        torch: await torch?.measure(one, rounds) ?? null,
        peers: plain ? await measurePeers(peers, one, absent) : {},
      });
      console.error(`${i + 1} of ${cases.length}: ${titleOfCase(one)}`);
    } catch (error) {
      const expected = error instanceof RangeError ||
        error instanceof DeviceError && error.code === "outOfMemory";
      if (!expected) throw error;
      absent.push(`${titleOfCase(one)} is not measured: ${error.message}`);
      console.error(absent.at(-1));
    }
  }
  const ranks: MeasuredRanks[] = [];
  for (const shape of software ? [[4, 8, 6, 6]] : GROUP_SHAPES) {
    if (positionals.length > 0) continue;
    const options = { shape, dawn, rounds };
    ranks.push({
      shape,
      thread: await ranksOfThread(device, options),
      workers: await ranksInWorkers(options),
      torch: software ? null : await torch?.ranks(shape) ?? null,
    });
  }
  const implementation = dawn ? `Dawn (${DAWN})` : "Deno's own WebGPU";
  const versions = [
    ...[`Deno ${Deno.version.deno}`, implementation, torch?.version ?? ""],
    ...peers.map(({ version }) => version),
  ];
  return {
    date: captionOf("").date,
    adapter: value("device", name),
    ...{ software, rounds, cases: measured, ranks, absent },
    versions: versions.filter((version) => version !== ""),
    command: `deno task bench:gpu${dawn ? " --dawn" : ""} --python python3 --write`,
  };
}

const measured = await run();
const text = gpuSection(measured);
console.log(text);
if (write) {
  await writeSection("gpu", text);
  await Deno.writeTextFile(new URL("gpu.svg", import.meta.url), gpuChart(measured));
}
Deno.exit(); // Dawn would keep the process alive.
