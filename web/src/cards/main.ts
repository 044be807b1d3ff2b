/** The cards for Home Assistant, in one file: `/cards/manifold-cards.js`. */

import { ReceivingEditor, SendingEditor } from "./editor";
import type { CustomCard } from "./hass";
import { ReceivingCard } from "./receiving-card";
import { SendingCard } from "./sending-card";

const CARDS: readonly (CustomCard & { readonly element: CustomElementConstructor })[] = [
  {
    type: "voice-sending-card",
    name: "Voice: talk",
    description: "Press, speak, and everybody who listens hears it.",
    element: SendingCard,
  },
  {
    type: "voice-receiving-card",
    name: "Voice: listen",
    description: "Hears voices in the browser, or has a media player play them.",
    element: ReceivingCard,
  },
];

// The script may be listed twice among the dashboard's resources.
function define(tag: string, element: CustomElementConstructor): void {
  if (customElements.get(tag) === undefined) customElements.define(tag, element);
}

window.customCards ??= [];
for (const { element, ...card } of CARDS) {
  define(card.type, element);
  if (!window.customCards.some((known) => known.type === card.type)) window.customCards.push(card);
}
define(SendingEditor.tag, SendingEditor);
define(ReceivingEditor.tag, ReceivingEditor);
