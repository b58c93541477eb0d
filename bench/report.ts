/**
 * What every report is written with: numbers, paragraphs and tables in Markdown as `deno fmt` leaves them, and the sections
 * of bench/README.md that stand between markers.
 */

const WIDTH = 100;
const README = new URL("README.md", import.meta.url);

/** Three digits, or all before the point. */
export function figure(value: number): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3;
  return value.toLocaleString("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** Milliseconds, with all digits that a few hundred nanoseconds need. */
export function time(milliseconds: number): string {
  return milliseconds < 0.1 ? milliseconds.toFixed(4) : figure(milliseconds);
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

/** A distance from what is right; nothing where it was not looked at. */
export function distance(value: number | undefined): string {
  return value?.toExponential(1) ?? "";
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

/** A list, or no part of a section where there is nothing to list. */
export function list(lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [lines.map((line) => paragraph(line, "- ")).join("\n")];
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

/** A heading, a text and a table, or no part of a section where the table would have no line. */
export function tabled(
  [heading, text]: readonly [string, string],
  head: readonly string[],
  lines: readonly (readonly string[])[],
): string[] {
  return lines.length === 0 ? [] : [`### ${heading}`, paragraph(text), table([head, ...lines])];
}

export function section(...parts: readonly string[]): string {
  return parts.join("\n\n");
}

/** What a machine is called without --machine. */
export const NOBODY = "a processor that nobody named";

/** The processor, the system, and the day, as captions say them. */
export function captionOf(machine: string) {
  const { os, arch } = Deno.build;
  return {
    machine: `${os} ${arch}, ${navigator.hardwareConcurrency} cores of ${machine}`,
    date: new Date().toISOString().slice(0, 10),
  };
}

/** Replaces what stands on a page between the markers of a section. */
export function replaceSection(page: string, name: string, text: string): string {
  const [BEGIN, END] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`];
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) {
    throw new RangeError(
      `Cannot replace the section as the page must have ${BEGIN} before ${END}: they are at ${begin} and ${end}`,
    );
  }
  return `${page.slice(0, begin + BEGIN.length)}\n\n${text}\n\n${page.slice(end)}`;
}

/** Writes a section of a page; the page is read anew, since somebody may have written to it meanwhile. */
export async function writeSection(name: string, text: string, page = README): Promise<void> {
  await Deno.writeTextFile(page, replaceSection(await Deno.readTextFile(page), name, text));
}

/** Fails now rather than after a quarter of an hour. */
export async function assertWritable(name: string): Promise<void> {
  replaceSection(await Deno.readTextFile(README), name, "");
}
