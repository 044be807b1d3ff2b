/** Starts the talk page. */

import { render } from "preact";
import { startClock } from "./state/clock";
import { startSettings } from "./state/settings";
import "./styles/page.css";
import "./styles/talk-page.css";
import { TalkPage } from "./ui/TalkPage";

startSettings();
startClock();

const root = document.getElementById("app");
if (root !== null) render(<TalkPage />, root);
