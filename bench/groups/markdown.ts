/**
 * Numbers, paragraphs and tables in Markdown, as `deno fmt` leaves them.
 *
 * @module
 */

const WIDTH = 100;

/** Three digits, or all before the point. */
export function figure(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3;
  return value.toLocaleString("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** With commas between thousands. */
export function count(value: number): string {
  return value.toLocaleString("en");
}

/** Breaks lines as `deno fmt` does. */
export function paragraph(text: string, bullet = ""): string {
  const indent = " ".repeat(bullet.length);
  const lines: string[] = [];
  let line = bullet;
  for (const word of text.split(" ")) {
    const wider = line.trim() === bullet.trim() ? `${line}${word}` : `${line} ${word}`;
    if (wider.length <= WIDTH) {
      line = wider;
    } else {
      lines.push(line);
      line = `${indent}${word}`;
    }
  }
  return [...lines, line].join("\n");
}

/** Pads cells as `deno fmt` does; the first line is the head. */
export function table(lines: readonly (readonly string[])[]): string {
  const widths = lines[0].map((_, i) => Math.max(3, ...lines.map((cells) => cells[i].length)));
  const row = (cells: readonly string[], filler: string) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i], filler)).join(" | ")} |`;
  const [head, ...rest] = lines;
  return [row(head, " "), row(head.map(() => ""), "-"), ...rest.map((cells) => row(cells, " "))]
    .join("\n");
}
