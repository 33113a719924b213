// Draws by POST, and keeps the page in step with the server by asking for its state.
import { $, Board, serverNow, setClock, tell } from "./board.js";
import { clearErrors, clearFailures, mendsItself, showErrors, showFailure } from "./form.js";
import { fillUpload, refillUpload } from "./links.js";
import { askState, isAway, post, showSince } from "./server.js";
import { sendsUploads } from "./upload.js";

const { stateUrl } = document.body.dataset;
const TICK = 200; // ms
const FIRST_LIFE = 60; // s, of the picture that a visitor finds
const pictures = new Board("plots", fillPicture);
const uploads = new Board("uploads", (element, upload) => fillUpload(element, upload, takeChange), refillUpload);
const boards = [pictures, uploads];
const order = $("order");
let sweeps = [];
let begun = false;

// The form

const field = (name) => order.elements[name];

function choosePlot() {
  for (const set of document.querySelectorAll(".parameters")) {
    set.hidden = set.disabled = set.dataset.plot !== field("plot").value;
  }
}

function showSeconds() {
  const seconds = field("seconds").value.trim();
  for (const offer of document.querySelectorAll("[data-seconds]")) {
    offer.setAttribute("aria-pressed", String(offer.dataset.seconds === seconds));
  }
  $("code-seconds").textContent = Number(seconds) || "…";
}

async function draw(event) {
  event.preventDefault();
  const button = order.querySelector(".primary");
  if (button.ariaBusy === "true") return;
  clearErrors(order);
  button.ariaBusy = "true";
  try {
    const { ok, answer } = await post(order.action, new FormData(order));
    if (ok) showDrawn(answer);
    else if (answer.errors) showErrors(order, answer.errors);
    else showFailure(order);
  } catch {
    showFailure(order);
  } finally {
    button.ariaBusy = "false";
  }
}

function showDrawn(picture) {
  setClock(picture.now);
  pictures.welcome(picture, picture.now);
  tell(`${picture.title} drawn. It lives for ${spoken(picture.life)}.`);
}

function showUpload(upload) {
  setClock(upload.now);
  uploads.welcome(upload, upload.now);
  tell(`${upload.title} uploaded. It lives for ${spoken(upload.life)}.`);
}

function takeChange(upload) {
  setClock(upload.now);
  uploads.change(upload, upload.now);
}

const spoken = (seconds) => (seconds < 120 ? `${seconds} seconds` : `${Math.round(seconds / 60)} minutes`);

// Draw a picture for a visitor who finds none.
async function drawFirst() {
  const wanted = new FormData(order);
  wanted.set("seconds", FIRST_LIFE);
  const { ok, answer } = await post(order.action, wanted);
  if (ok) pictures.takeAll([answer], answer.now);
}

function fillPicture(element, { title, url }) {
  element.querySelector("h3").textContent = title;
  element.querySelector("a").href = url;
  element.querySelector("img").alt = `${title}, open at full size`;
  element.querySelector("img").src = url;
}

// Show the newest picture beside the code that publishes it, until it has gone.
function showNewest() {
  const card = $("plots").firstElementChild;
  const image = $("newest");
  if (card) {
    image.src = card.querySelector("img").src;
    image.alt = card.querySelector("h3").textContent;
    $("newest-left").textContent = card.classList.contains("overdue") ? "Due: a worker deletes it" : `Deleted in ${card.querySelector(".left").textContent}`;
  } else if (!image.hidden) {
    $("newest-left").textContent = isAway() ? "" : "A worker has deleted it. Draw another one.";
  }
  image.hidden = !card;
}

// The sweeps

function showSweeps() {
  if (!sweeps.length) return;
  const rows = sweeps.map((sweep) => {
    const row = document.createElement("tr");
    row.append(
      cell(`${ago(serverNow() - sweep.finished)} ago`), cell(sweep.deleted),
      cell(sweep.failed, sweep.failed ? "trouble" : ""),
      cell(`${sweep.lag.toFixed(1)} s`), cell(`${(sweep.duration * 1000).toFixed(0)} ms`),
    );
    return row;
  });
  $("sweeps").replaceChildren(...rows);
}

function cell(text, kind = "") {
  const element = document.createElement("td");
  element.textContent = text;
  element.className = kind;
  return element;
}

function ago(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// In step with the server

function takeIn(state) {
  setClock(state.now);
  pictures.takeAll(state.plots, state.now);
  uploads.takeAll(state.uploads, state.now);
  sweeps = state.sweeps;
  showSweeps();
}

async function poll() {
  if (!document.hidden) {
    const wasAway = isAway();
    const state = await askState(stateUrl);
    for (const board of boards) board.known = Boolean(state);
    if (state) takeIn(state);
    if (state && wasAway) clearFailures();
    if (state && !begun && !state.plots.length) await drawFirst().catch(() => {});
    begun ||= Boolean(state);
  }
  setTimeout(poll, boards.some((board) => board.closing) ? 500 : 2000);
}

function tick() {
  for (const board of boards) board.tick();
  showNewest();
}

order.addEventListener("submit", draw);
order.addEventListener("input", showSeconds);
order.addEventListener("change", choosePlot);
mendsItself(order);
sendsUploads(showUpload);
for (const offer of document.querySelectorAll("[data-seconds]")) {
  offer.addEventListener("click", () => {
    field("seconds").value = offer.dataset.seconds;
    field("seconds").dispatchEvent(new Event("input", { bubbles: true }));
  });
}
choosePlot();
showSeconds();
setInterval(tick, TICK);
setInterval(showSweeps, 1000);
setInterval(showSince, 1000);
poll();
