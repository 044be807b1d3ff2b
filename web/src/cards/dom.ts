/** Elements without a framework: the cards are one small file. */

type Attributes = Readonly<Record<string, string | boolean | undefined>>;

/** An element with attributes; `true` is one without a value, `false` and `undefined` none. Text is never markup. */
export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A line icon on a 16 px grid, from the data of its paths. */
export function icon(...paths: readonly string[]): SVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  for (const data of paths) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("d", data);
    svg.append(path);
  }
  return svg;
}

export const MICROPHONE = "M8 1.8a2.2 2.2 0 012.2 2.2v3.2a2.2 2.2 0 01-4.4 0V4A2.2 2.2 0 018 1.8zM3.2 7.6a4.8 4.8 0 009.6 0M8 12.4v2M5.8 14.4h4.4";
export const SPEAKER = "M2 6.2h2.4L8 3.2v9.6L4.4 9.8H2zM10.5 5.8a3.2 3.2 0 010 4.4M12.4 3.9a6 6 0 010 8.2";

/** Sets text only where it changed, so that a screen reader is told once. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
