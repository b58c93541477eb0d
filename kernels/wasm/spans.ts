/** Idle spans of a memory, by address, neighbours joined. */

/** Idle spans. Addresses and sizes are bytes. */
export interface Spans {
  /** Adds a span that touches no other but at its ends, and joins it to what it touches. */
  readonly add: (address: number, bytes: number) => void;
  /** Takes bytes from the lowest span that has as many, and tells where; undefined where none has. */
  readonly take: (bytes: number) => number | undefined;
  /** Takes the span that ends at an address, and tells where it begins; the address itself where there is none. */
  readonly takeBefore: (end: number) => number;
}

interface Span {
  address: number;
  bytes: number;
}

/** Neighbours, at least one. */
interface Chunk {
  readonly spans: Span[];
  /** No span of the chunk has more bytes. */
  most: number;
}

/** Spans of a chunk: a search looks at all chunks and into few, so that it takes the root of what a list would. */
const LONGEST = 256;

/** Makes an empty collection of spans. */
export function createSpans(): Spans {
  const chunks: Chunk[] = [];

  const remove = (at: number, index: number): void => {
    chunks[at].spans.splice(index, 1);
    if (chunks[at].spans.length === 0) chunks.splice(at, 1);
  };
  const halve = (at: number): void => {
    const { spans } = chunks[at];
    if (spans.length <= LONGEST) return;
    const upper = spans.splice(LONGEST / 2);
    chunks.splice(at, 1, chunkOf(spans), chunkOf(upper));
  };

  return Object.freeze<Spans>({
    add: (address, bytes) => {
      if (chunks.length === 0) {
        chunks.push(chunkOf([{ address, bytes }]));
        return;
      }
      const at = Math.max(0, firstAbove(chunks, ({ spans }) => spans[0].address, address) - 1);
      const chunk = chunks[at];
      const index = firstAbove(chunk.spans, (span) => span.address, address);
      let span = chunk.spans[index - 1];
      if (span !== undefined && span.address + span.bytes === address) span.bytes += bytes;
      else {
        span = { address, bytes };
        chunk.spans.splice(index, 0, span);
      }
      const inside = chunk.spans.indexOf(span, Math.max(0, index - 1)) + 1;
      const [nextAt, nextIndex] = inside < chunk.spans.length ? [at, inside] : [at + 1, 0];
      const next = chunks[nextAt]?.spans[nextIndex];
      if (next !== undefined && span.address + span.bytes === next.address) {
        span.bytes += next.bytes;
        remove(nextAt, nextIndex);
      }
      chunk.most = Math.max(chunk.most, span.bytes);
      halve(at);
    },
    take: (bytes) => {
      for (const [at, chunk] of chunks.entries()) {
        if (chunk.most < bytes) continue;
        const index = chunk.spans.findIndex((span) => span.bytes >= bytes);
        if (index < 0) {
          chunk.most = mostOf(chunk.spans);
          continue;
        }
        const span = chunk.spans[index];
        const { address } = span;
        span.address += bytes;
        span.bytes -= bytes;
        if (span.bytes === 0) remove(at, index);
        return address;
      }
      return undefined;
    },
    takeBefore: (end) => {
      const last = chunks.at(-1)?.spans.at(-1);
      if (last === undefined || last.address + last.bytes !== end) return end;
      remove(chunks.length - 1, chunks[chunks.length - 1].spans.length - 1);
      return last.address;
    },
  });
}

function chunkOf(spans: Span[]): Chunk {
  return { spans, most: mostOf(spans) };
}

function mostOf(spans: readonly Span[]): number {
  return spans.reduce((most, { bytes }) => Math.max(most, bytes), 0);
}

/** Index of the first item whose address is above another; items ascend. */
function firstAbove<T>(items: readonly T[], addressOf: (item: T) => number, address: number) {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = low + high >> 1;
    if (addressOf(items[middle]) > address) high = middle;
    else low = middle + 1;
  }
  return low;
}
