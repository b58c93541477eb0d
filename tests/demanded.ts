/** Whether the run promises this part: then its absence is a failure, elsewhere its tests are ignored. */
export function demanded(part: string): boolean {
  return (Deno.env.get("SYNCBN_DEMAND") ?? "").split(",").includes(part);
}
