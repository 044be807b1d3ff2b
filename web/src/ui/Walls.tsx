/** Saved walls, on one card: what is open is saved under a name; what was saved is opened and deleted. */

import { signal } from "@preact/signals";
import type { SavedWall } from "../api/wire";
import { announce } from "../state/announce";
import { wall } from "../state/wall";
import { deleteWall, named, openWall, refreshWalls, saveWall, shownWall, walls, wallsTrouble } from "../state/walls";
import { counted } from "./format";
import { CloseIcon } from "./icons";

const DIALOG_ID = "walls";
/** As the server takes them, in bytes; it says so where letters take several. */
const NAME_LENGTH_MAX = 200;

const name = signal("");
/** The wall that a second press deletes. */
const doomed = signal("");

export function openWalls(): void {
  const element = dialog();
  if (element === null || element.open) return;
  doomed.value = "";
  name.value = shownWall.peek()?.name ?? "";
  element.showModal();
  void refreshWalls();
}

export function Walls() {
  return (
    <dialog id={DIALOG_ID} class="help walls" aria-labelledby="walls-title">
      <h2 id="walls-title">Walls</h2>
      <SaveForm />
      {wallsTrouble.value !== "" && (
        <p class="walls-trouble" role="alert">
          {wallsTrouble.value}
        </p>
      )}
      <ul class="wall-rows" aria-label="Saved walls">
        {walls.value.map((saved) => (
          <WallRow key={saved.id} saved={saved} />
        ))}
      </ul>
      {walls.value.length === 0 && <p class="walls-empty">No wall is saved yet.</p>}
      <form method="dialog">
        <button type="submit" class="button">
          Close
        </button>
      </form>
    </dialog>
  );
}

function SaveForm() {
  const count = wall.value.length;
  const trimmed = name.value.trim();
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (trimmed !== "" && count > 0 && (await saveWall(trimmed))) name.value = "";
  };
  if (count === 0) return <p class="walls-empty">Open the cameras of a wall to save it.</p>;
  return (
    <form class="wall-save" onSubmit={(event) => void submit(event)}>
      <label class="visually-hidden" for="wall-name">
        Name of the wall
      </label>
      <input
        id="wall-name"
        dir="auto"
        placeholder={`Name for these ${counted(count, "camera", "cameras")}`}
        autocomplete="off"
        maxLength={NAME_LENGTH_MAX}
        value={name.value}
        onInput={(event) => (name.value = event.currentTarget.value)}
      />
      <button type="submit" class="button" disabled={trimmed === ""}>
        {named(trimmed) === undefined ? "Save" : "Replace"}
      </button>
    </form>
  );
}

function WallRow({ saved }: { saved: SavedWall }) {
  const isDoomed = doomed.value === saved.id;
  const choose = (): void => {
    openWall(saved);
    dialog()?.close();
  };
  return (
    <li class="wall-row">
      <button
        type="button"
        class="wall-open"
        data-wall={saved.id}
        aria-pressed={shownWall.value?.id === saved.id}
        onClick={choose}
      >
        <span class="wall-name" dir="auto">
          {saved.name}
        </span>
        <span class="wall-count number">{counted(saved.cameraIds.length, "camera", "cameras")}</span>
      </button>
      <button
        type="button"
        class={isDoomed ? "button wall-doomed" : "icon-button"}
        data-delete-wall={saved.id}
        aria-label={`${isDoomed ? "Delete for good" : "Delete"}: ${saved.name}`}
        title="Delete"
        onClick={() => void remove(saved)}
        onBlur={() => (doomed.value = "")}
      >
        {isDoomed ? "Delete" : <CloseIcon />}
      </button>
    </li>
  );
}

/** The first press asks. Afterwards the focus has to be somewhere. */
async function remove(saved: SavedWall): Promise<void> {
  if (doomed.peek() !== saved.id) {
    doomed.value = saved.id;
    return announce(`Press again to delete the wall ${saved.name}`);
  }
  const at = walls.peek().findIndex((other) => other.id === saved.id);
  if (!(await deleteWall(saved))) return;
  const next = walls.peek()[Math.min(at, walls.peek().length - 1)];
  const wanted = next === undefined ? "form[method=dialog] button" : `[data-wall="${CSS.escape(next.id)}"]`;
  requestAnimationFrame(() => dialog()?.querySelector<HTMLElement>(wanted)?.focus());
}

function dialog(): HTMLDialogElement | null {
  const element = document.getElementById(DIALOG_ID);
  return element instanceof HTMLDialogElement ? element : null;
}
