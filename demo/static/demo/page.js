// Draws and uploads by POST, and keeps the page in step with the server by asking for its state.
import { $, Board, serverNow, setClock, tell } from "./board.js";

const { stateUrl } = document.body.dataset;
const TICK = 200; // ms
const pictures = new Board("plots", fillPicture);
const uploads = new Board("uploads", fillUpload);
let sweeps = [];

// The forms

const field = (name) => $("order").elements[name];

function choosePlot() {
  for (const set of document.querySelectorAll(".parameters")) {
    set.hidden = set.disabled = set.dataset.plot !== field("plot").value;
  }
}

function markOffers() {
  for (const offer of document.querySelectorAll("[data-seconds]")) {
    offer.setAttribute("aria-pressed", String(offer.dataset.seconds === field("seconds").value.trim()));
  }
}

function clearErrors(form) {
  for (const error of form.querySelectorAll(".error")) error.hidden = true;
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

function showErrors(form, errors) {
  for (const [name, message] of Object.entries(errors)) {
    $(`${name}-error`).textContent = message;
    $(`${name}-error`).hidden = false;
    form.elements[name].setAttribute?.("aria-invalid", "true");
  }
  form.querySelector("[aria-invalid]")?.focus();
  tell(Object.values(errors).join(" "));
}

function showFailure(form) {
  const error = form.querySelector("[role=alert]");
  error.textContent = "That did not work. Please try again in a moment.";
  error.hidden = false;
}

// Send a form when it is submitted, and hand what the server has made of it to `done`.
function sendsTo(form, done) {
  const button = form.querySelector(".primary");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.ariaBusy === "true") return;
    clearErrors(form);
    button.ariaBusy = "true";
    try {
      const answer = await fetch(form.action, { method: "POST", body: new FormData(form) });
      const made = await answer.json();
      if (answer.ok) done(made);
      else if (made.errors) showErrors(form, made.errors);
      else showFailure(form);
    } catch {
      showFailure(form);
    } finally {
      button.ariaBusy = "false";
    }
  });
}

function showPicture(picture) {
  setClock(picture.now);
  pictures.welcome(picture, picture.now);
  tell(`${picture.title} drawn. It lives for ${spoken(picture.life)}.`);
}

function showUpload(upload) {
  setClock(upload.now);
  uploads.welcome(upload, upload.now);
  $("upload").elements["upload-file"].value = "";
  tell(`${upload.title} uploaded. It lives for ${spoken(upload.life)}.`);
}

const spoken = (seconds) => (seconds < 120 ? `${seconds} seconds` : `${Math.round(seconds / 60)} minutes`);

// The lists

function fillPicture(element, { title, url }) {
  element.querySelector("h3").textContent = title;
  element.querySelector("a").href = url;
  element.querySelector("img").alt = `${title}, open at full size`;
  element.querySelector("img").src = url;
}

function fillUpload(element, { title, url, one_time_link: maker }) {
  const [file, link] = element.querySelectorAll("a");
  const button = element.querySelector("button");
  file.textContent = title;
  file.href = url;
  for (const unseen of element.querySelectorAll(".unseen")) unseen.textContent = ` to ${title}`;
  button.addEventListener("click", () => makeLink(maker, button, link, title));
  link.addEventListener("click", () => link.classList.add("used"));
}

async function makeLink(maker, button, link, title) {
  const token = $("upload").elements.csrfmiddlewaretoken.value;
  try {
    const answer = await fetch(maker, { method: "POST", headers: { "X-CSRFToken": token } });
    if (!answer.ok) throw new Error(answer.statusText);
    link.href = (await answer.json()).url;
    link.hidden = false;
    link.focus();
    button.hidden = true;
    tell(`A link to ${title} that works once is ready.`);
  } catch {
    tell(`There is no link to ${title}: its time may be up.`);
  }
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
    try {
      const answer = await fetch(stateUrl);
      if (answer.ok) takeIn(await answer.json());
    } catch {
      // The site is away: the next poll tries again.
    }
  }
  setTimeout(poll, pictures.closing || uploads.closing ? 500 : 2000);
}

function tick() {
  pictures.tick();
  uploads.tick();
}

sendsTo($("order"), showPicture);
sendsTo($("upload"), showUpload);
$("order").addEventListener("input", markOffers);
$("order").addEventListener("change", choosePlot);
for (const offer of document.querySelectorAll("[data-seconds]")) {
  offer.addEventListener("click", () => {
    field("seconds").value = offer.dataset.seconds;
    markOffers();
  });
}
choosePlot();
markOffers();
setInterval(tick, TICK);
setInterval(showSweeps, 1000);
poll();
