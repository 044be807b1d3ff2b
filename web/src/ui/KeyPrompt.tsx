/** Asks for an API key where the server wants one. It stays in this tab. */

import { useSignal } from "@preact/signals";
import { keyNeeded, refresh, serverTrouble } from "../state/park";
import { apiKey } from "../state/settings";
import { wall } from "../state/wall";

export function KeyPrompt() {
  const typed = useSignal("");
  if (!keyNeeded.value) return null;
  const submit = (event: Event): void => {
    event.preventDefault();
    apiKey.value = typed.value.trim();
    void refresh();
    for (const tile of wall.peek()) tile.retryNow();
  };
  return (
    <form class="banner" onSubmit={submit}>
      <label for="api-key">{serverTrouble.value} Paste a token made with “manifold token”:</label>
      <input
        id="api-key"
        type="password"
        autocomplete="off"
        value={typed.value}
        onInput={(event) => (typed.value = event.currentTarget.value)}
      />
      <button type="submit" class="button">
        Use it
      </button>
    </form>
  );
}
