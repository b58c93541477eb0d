/**
 * Breaking text into lines.
 *
 * @module
 */

/**
 * Breaks a text at its spaces.
 *
 * @param text words
 * @param length characters that a line may have; a longer word has a line of its own
 * @returns lines, one at least
 */
export function wrap(text: string, length: number): readonly string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= length) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else {
      lines.push(word);
    }
  }
  return lines;
}
