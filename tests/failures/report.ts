/**
 * What went wrong how often, and whether anything hung, summed wrongly or was left behind.
 */

import { type Kind, KINDS, type Outcome } from "./scenarios.ts";
import type { Subject, Trial } from "./subject.ts";

/** One line of the report. */
export interface Line {
  readonly subject: string;
  readonly kind: string;
  readonly times: number;
  /** Times that some rank, or the start as a whole, did not come to an end in time. */
  readonly hung: number;
  /** Times that some result was not what it had to be. */
  readonly wrong: number;
  /** Times that the survivors did not see the same error of the right kind and rank. */
  readonly unlike: number;
  /** Times that a state was not as before, or did not train on. */
  readonly stateLost: number;
  /** Times that something was left behind. */
  readonly leftBehind: number;
  /** Slowest error, from the call to the rejection, in ms; of a launcher, from start to end; null where there is to be none. */
  readonly slowestMs: number | null;
  /** How the first failure of each kind read, for whoever looks closer. */
  readonly message: string;
  /** What was not as it should be, in words. */
  readonly remarks: readonly string[];
}

/** Deadline of the groups in the report, in ms. */
export const TIMEOUT_MS = 500;
/** How much later than the deadline an error may come. */
const SLACK_MS = 1000;
/** How long ranks may take to start and end, in s, besides their failures. */
const START_SECONDS = 20;

/** The error that each kind must give to every survivor. */
const EXPECTED: Record<Kind, { readonly code: readonly string[]; readonly ranks: string }> = {
  "killed before a collective": { code: ["deadline", "rankFailed"], ranks: "1" },
  "killed in a collective": { code: ["deadline", "rankFailed"], ranks: "1" },
  "killed after a collective": { code: ["deadline", "rankFailed"], ranks: "1" },
  "throws": { code: ["rankFailed", "deadline"], ranks: "1" },
  "late past the deadline": { code: ["deadline"], ranks: "1" },
  "cancelled": { code: ["cancelled"], ranks: "0" },
  "other length": { code: ["disagreement"], ranks: "0,1,2" },
  "other operation": { code: ["disagreement"], ranks: "0,1,2" },
  "other call count": { code: ["disagreement"], ranks: "0,1,2" },
  "other channels": { code: ["disagreement"], ranks: "0,1,2" },
  "other weights": { code: ["disagreement"], ranks: "1" },
};

/**
 * Has every kind of failure happen to an engine.
 *
 * @param subject the engine
 * @param times how often each
 * @param kinds which ones
 * @param onTrial called after each start, for progress
 * @returns one line per kind
 */
export async function provoke(
  subject: Subject,
  times: number,
  kinds: readonly Kind[] = KINDS,
  onTrial: (kind: Kind, done: number) => void = () => {},
): Promise<readonly Line[]> {
  const lines: Line[] = [];
  for (const kind of kinds) {
    const perStart = subject.restarts(kind) ? 1 : times;
    const trials: Trial[] = [];
    for (let done = 0; done < times; done += perStart) {
      trials.push(await subject.trial({ kind, times: perStart, timeoutMs: TIMEOUT_MS }));
      onTrial(kind, done + perStart);
    }
    lines.push(judge(subject.name, kind, perStart, trials));
  }
  return lines;
}

/** Counts what was not as it should be. */
function judge(subject: string, kind: Kind, perStart: number, trials: readonly Trial[]): Line {
  const remarks = new Set<string>();
  const sum = { hung: 0, wrong: 0, unlike: 0, stateLost: 0, leftBehind: 0 };
  let slowestMs = 0;
  let message = "";
  for (const trial of trials) {
    const longest = perStart * (TIMEOUT_MS + SLACK_MS) / 1000 + START_SECONDS;
    if (trial.seconds > longest) {
      sum.hung++;
      remarks.add(`a start took ${trial.seconds.toFixed(1)} s`);
    }
    if (trial.leftBehind.length > 0) {
      sum.leftBehind++;
      trial.leftBehind.forEach((what) => remarks.add(`left behind: ${what}`));
    }
    const tellers = trial.outcomes.filter((own) => own !== null);
    if (trial.killedByLauncher && tellers.length === 0) {
      slowestMs = Math.max(slowestMs, 1000 * trial.seconds);
      message ||= trial.failed ?? "";
      continue;
    }
    const survivors = trial.outcomes.length - (isFatal(kind) ? 1 : 0);
    for (let time = 0; time < perStart; time++) {
      const seen = tellers.flatMap((own) => own[time] ?? []);
      const problems = problemsOf(kind, seen, survivors, trial.killedByLauncher === true);
      for (const [name, what] of problems) {
        sum[name]++;
        remarks.add(what);
      }
      slowestMs = Math.max(slowestMs, ...seen.map(({ ms }) => ms));
      message ||= seen[0]?.message ?? "";
    }
  }
  const times = perStart * trials.length;
  return { subject, kind, times, ...sum, slowestMs, message, remarks: [...remarks] };
}

type Problem = readonly ["hung" | "wrong" | "unlike" | "stateLost", string];

function problemsOf(
  kind: Kind,
  seen: readonly Outcome[],
  survivors: number,
  cutShort: boolean,
): readonly Problem[] {
  const problems: Problem[] = [];
  const { code, ranks } = EXPECTED[kind];
  if (seen.length < survivors && !cutShort) {
    problems.push(["hung", `only ${seen.length} of ${survivors} ranks told what they saw`]);
  }
  const late = kind === "late past the deadline" ? 200 : 0;
  const slow = seen.find(({ ms }) => ms > TIMEOUT_MS + late + SLACK_MS);
  if (slow) problems.push(["hung", `an error took ${slow.ms.toFixed(0)} ms`]);
  if (seen.some(({ wrong }) => wrong > 0)) problems.push(["wrong", "a sum was wrong"]);
  const odd = seen.find((own) =>
    !code.includes(own.code) || own.ranks.join() !== ranks || own.message !== seen[0].message
  );
  if (odd) problems.push(["unlike", `${odd.code} of ranks ${odd.ranks}: ${odd.message}`]);
  if (seen.some(({ stateKept }) => !stateKept)) problems.push(["stateLost", "a state was lost"]);
  return problems;
}

function isFatal(kind: Kind): boolean {
  return kind.startsWith("killed") || kind === "throws";
}

/** Whether nothing was wrong. */
export function isClean(line: Line): boolean {
  return line.hung + line.wrong + line.unlike + line.stateLost + line.leftBehind === 0;
}

/** The report as a Markdown table. */
export function table(lines: readonly Line[]): string {
  const head = [
    "engine",
    "failure of a rank",
    "times",
    "hung",
    "wrong",
    "unlike errors",
    "state lost",
    "left behind",
    "slowest error",
  ];
  const rows = lines.map((line) => [
    line.subject,
    line.kind,
    line.times,
    line.hung,
    line.wrong,
    line.unlike,
    line.stateLost,
    line.leftBehind,
    line.slowestMs === null
      ? ""
      : line.slowestMs >= 1000
      ? `${(line.slowestMs / 1000).toFixed(1)} s`
      : `${line.slowestMs.toFixed(0)} ms`,
  ]);
  const rule = head.map((_, i) => (i < 2 ? "---" : "--:"));
  return [head, rule, ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}
