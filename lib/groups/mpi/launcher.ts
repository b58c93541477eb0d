/** Who started this process: read from the variables that launchers leave in the environment. */

import { MpiError } from "./errors.ts";

/** The two families of MPI libraries that differ in their binary interface. */
export type MpiFamily = "Open MPI" | "MPICH";

/** What started this process as one of several ranks. */
export interface Launcher {
  readonly family: MpiFamily;
  readonly size: number;
  /** The variable that says so, with its value. */
  readonly evidence: string;
  /** Whether that family's library alone can join its ranks; other launchers speak the protocol of MPICH's too. */
  readonly sure: boolean;
}

const VARIABLES = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"] as const;

/** Finds the launcher. */
export function findLauncher(): Launcher | null {
  const [openMpi, pmi, hydra] = VARIABLES.map(read);
  if (openMpi !== undefined) return launcher("Open MPI", VARIABLES[0], openMpi, true);
  if (pmi !== undefined) return launcher("MPICH", VARIABLES[1], pmi, hydra !== undefined);
  return null;
}

function launcher(family: MpiFamily, name: string, value: string, sure: boolean): Launcher {
  return { family, size: Number(value), evidence: `${name}=${value}`, sure };
}

function read(name: string): string | undefined {
  try {
    return Deno.env.get(name);
  } catch (cause) {
    throw new MpiError(
      `Cannot make the MPI group as the launcher's variables must be readable: ` +
        `run deno with --allow-env=${VARIABLES.join(",")}`,
      "permission",
      { cause },
    );
  }
}
