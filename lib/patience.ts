/**
 * Waiting that counts only the time in which this thread itself ran.
 *
 * A process can be stopped and go on: by Ctrl-Z and `fg`, a paused container, a debugger, a laptop's lid. By the clock
 * everybody it waits for is late then; in truth nobody had the time to come. So whoever waits looks again and again, and
 * between two looks no more counts than what a thread that runs would have let pass.
 */

/** How long somebody may go on waiting. */
export interface Patience {
  /** The longest that may pass until the next look, in ms. */
  readonly sliceMs: number;
  /** Looks: how much is left, in ms; 0 or less once the time is up. */
  readonly leftMs: () => number;
}

const LONGEST_SLICE_MS = 100;
/** So that a stop costs no more than a sixteenth of the time there is. */
const SLICES = 32;
/** What timers and other threads take at times, where the time is that short. */
const SHORTEST_MS = 8;

/** Tells a time that stands still while this thread does: a step between two looks counts as `mostMs` at most. */
export function awakeClock(mostMs: number): () => number {
  let seen = performance.now();
  let awake = 0;
  return () => {
    const now = performance.now();
    awake += Math.min(now - seen, mostMs);
    seen = now;
    return awake;
  };
}

/** Says how far apart looks may be, and what one of them counts at most, for a wait of this length. */
export function paceOf(timeoutMs: number): { readonly sliceMs: number; readonly mostMs: number } {
  const sliceMs = Math.min(LONGEST_SLICE_MS, timeoutMs / SLICES);
  return { sliceMs, mostMs: Math.max(2 * sliceMs, Math.min(SHORTEST_MS, timeoutMs / 4)) };
}

/** Begins to wait. */
export function patienceFor(timeoutMs: number): Patience {
  const { sliceMs, mostMs } = paceOf(timeoutMs);
  const awake = awakeClock(mostMs);
  return { sliceMs, leftMs: () => timeoutMs - awake() };
}

/** Waits by timers. */
export function alarmIn(timeoutMs: number, over: () => void): () => void {
  if (timeoutMs === Infinity) return () => {};
  const { sliceMs, leftMs } = patienceFor(timeoutMs);
  let timer: ReturnType<typeof setTimeout>;
  const look = (): void => {
    const left = leftMs();
    if (left <= 0) over();
    else timer = setTimeout(look, Math.min(sliceMs, left));
  };
  look();
  return () => clearTimeout(timer);
}
