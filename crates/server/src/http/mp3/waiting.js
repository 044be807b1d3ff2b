// Plays whoever speaks: the server sends silence until then, and after. This only says which of both
// it is, and keeps the player live.
const POLL_MS = 2_000;
/** A player that was paused for longer plays the past: it begins anew. */
const STALE_MS = 1_000;

const player = document.getElementById("player");
const state = document.getElementById("state");
const blocked = document.getElementById("blocked");
let pausedAt = 0;

// With the token that this page was opened with, where the relay asks for one.
player.src = `latest.mp3${location.search}`;

function play() {
  player.play().then(
    () => { blocked.hidden = true; },
    (error) => { blocked.hidden = error.name !== "NotAllowedError"; },
  );
}

function begin() {
  pausedAt = 0;
  player.load();
  play();
}

async function look() {
  try {
    const answer = await fetch("status", { cache: "no-store" });
    const { active_streams: voices } = await answer.json();
    state.textContent = voices.length > 0 ? "Somebody is speaking" : "Nobody is speaking yet";
    // The server was gone, or took this player for dead.
    if (player.error || player.ended) begin();
  } catch {
    state.textContent = "The server does not answer; trying again";
  }
}

player.addEventListener("pause", () => { pausedAt = Date.now(); });
player.addEventListener("play", () => {
  if (pausedAt > 0 && Date.now() - pausedAt > STALE_MS) begin();
});
setInterval(look, POLL_MS);
look();
play();
