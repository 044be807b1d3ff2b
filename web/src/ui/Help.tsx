/** The keyboard, on one card. */

const KEYS: readonly (readonly [readonly string[], string])[] = [
  [["/"], "Search cameras"],
  [["↑", "↓"], "Move in the list"],
  [["Enter"], "Open the camera, or go to its tile"],
  [["1", "…", "9"], "Go to a tile"],
  [["←", "→", "↑", "↓"], "Move between tiles"],
  [["M"], "Sound of the tile on or off"],
  [["F"], "Full screen"],
  [["I"], "Figures of the tile"],
  [["Delete"], "Close the tile"],
  [["W"], "Save a wall, or open a saved one"],
  [["T"], "Talk, and hear who talks"],
  [["Esc"], "Leave full screen, search or this card"],
];

const DIALOG_ID = "help";

export function openHelp(): void {
  const dialog = document.getElementById(DIALOG_ID);
  if (dialog instanceof HTMLDialogElement && !dialog.open) dialog.showModal();
}

export function Help() {
  return (
    <dialog id={DIALOG_ID} class="help" aria-labelledby="help-title">
      <form method="dialog">
        <h2 id="help-title">Keyboard</h2>
        <dl>
          {KEYS.map(([keys, meaning]) => (
            <div key={meaning}>
              <dt>
                {keys.map((key) => (
                  <kbd key={key}>{key}</kbd>
                ))}
              </dt>
              <dd>{meaning}</dd>
            </div>
          ))}
        </dl>
        <button type="submit" class="button">
          Close
        </button>
      </form>
    </dialog>
  );
}
