/// <reference lib="dom" />
/**
 * The document: finding what it has, and changing no more of it than must be.
 *
 * @module
 */

/** Finds an element that the page has. */
export function element<E extends HTMLElement = HTMLElement>(id: string): E {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`Cannot find #${id} on the page`);
  return found as E;
}

/** Sets a text where it is another one, so that nothing is read aloud twice. */
export function setText(id: string, text: string): void {
  const found = element(id);
  if (found.textContent !== text) found.textContent = text;
}

/**
 * Makes a parent's content what markup says. Elements that are of the same kind as before stay, so that what moves glides;
 * the markup must be the page's own.
 */
export function morph(parent: Element, markup: string): void {
  const fresh = parent.cloneNode(false) as Element;
  fresh.innerHTML = markup;
  follow(parent, fresh);
}

function follow(old: Element, fresh: Element): void {
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
  for (const [i, node] of after.entries()) {
    const kept = before[i];
    if (kept === undefined) old.append(node);
    else if (kept.nodeName !== node.nodeName) kept.replaceWith(node);
    else if (kept instanceof Element) follow(kept, node as Element);
    else if (kept.nodeValue !== node.nodeValue) kept.nodeValue = node.nodeValue;
  }
  for (const gone of before.slice(after.length)) gone.remove();
}
