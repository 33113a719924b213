// Draws by POST, and keeps the list of pictures in step with the server by asking for its state.
const $ = (id) => document.getElementById(id);
const { drawUrl, stateUrl } = document.body.dataset;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const TICK = 200; // ms
const CLOSING = 5; // s
const cards = new Map(); // name -> {element, title, deadline, life, since}: server times, in seconds
let sweeps = [];
let clockOffset = 0; // s: the server's clock less this one's

const serverNow = () => Date.now() / 1000 + clockOffset;
const tell = (news) => { $("news").textContent = news; };

// The form

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

function clearErrors() {
  for (const error of document.querySelectorAll(".error")) error.hidden = true;
  for (const input of document.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

function showErrors(errors) {
  for (const [name, message] of Object.entries(errors)) {
    $(`${name}-error`).textContent = message;
    $(`${name}-error`).hidden = false;
    if (field(name).setAttribute) field(name).setAttribute("aria-invalid", "true");
  }
  document.querySelector("[aria-invalid]")?.focus();
  tell(Object.values(errors).join(" "));
}

function showFailure() {
  $("order-error").textContent = "The site could not draw it. Please try again in a moment.";
  $("order-error").hidden = false;
}

async function order(event) {
  event.preventDefault();
  if ($("submit").ariaBusy === "true") return;
  clearErrors();
  $("submit").ariaBusy = "true";
  try {
    const answer = await fetch(drawUrl, { method: "POST", body: new FormData($("order")) });
    const body = await answer.json();
    if (answer.ok) welcome(body);
    else if (body.errors) showErrors(body.errors);
    else showFailure();
  } catch {
    showFailure();
  } finally {
    $("submit").ariaBusy = "false";
  }
}

function welcome(plot) {
  setClock(plot.now);
  takePlot(plot, plot.now);
  tick();
  tell(`${plot.title} drawn. It lives for ${spoken(plot.life)}.`);
  cards.get(plot.name).element.scrollIntoView({
    block: "nearest", behavior: calm.matches ? "auto" : "smooth",
  });
}

// The pictures

function takePlot(plot, now) {
  const card = cards.get(plot.name);
  if (!card && plot.url) addCard(plot, now);
  // Of one that is being deleted the server tells the present time.
  if (card && plot.deadline > now) card.deadline = plot.deadline;
}

function addCard(plot, since) {
  const element = $("card").content.firstElementChild.cloneNode(true);
  element.dataset.name = plot.name;
  element.querySelector("h3").textContent = plot.title;
  element.querySelector("a").href = plot.url;
  element.querySelector("img").alt = `${plot.title}, open at full size`;
  element.querySelector("img").src = plot.url;
  $("plots").prepend(element);
  cards.set(plot.name, { ...plot, element, since });
}

async function dropCard(name) {
  const { element, title, deadline } = cards.get(name);
  cards.delete(name);
  tell(`${title} was deleted, ${Math.max(0, serverNow() - deadline).toFixed(0)} seconds after its time.`);
  if (element.contains(document.activeElement)) $("alive-title").focus();
  if (!calm.matches) await element.animate({ opacity: 0, transform: "scale(.94)" }, 600).finished;
  element.remove();
  showCount();
}

function showCount() {
  $("count").textContent = cards.size;
  $("empty").hidden = $("plots").childElementCount > 0;
}

function showLife({ element, deadline, life }) {
  const left = deadline - serverNow();
  element.classList.toggle("closing", left < CLOSING);
  element.classList.toggle("overdue", left <= 0);
  element.querySelector(".left").textContent = left > 0 ? countdown(left) : "sweep due";
  element.querySelector(".bar span").style.transform = `scaleX(${Math.min(1, Math.max(0, left / life))})`;
}

function countdown(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function spoken(seconds) {
  return seconds < 120 ? `${seconds} seconds` : `${Math.round(seconds / 60)} minutes`;
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

function setClock(now) {
  clockOffset = now - Date.now() / 1000;
}

function takeIn(state) {
  setClock(state.now);
  const alive = new Set(state.plots.map((plot) => plot.name));
  for (const plot of state.plots.sort((a, b) => b.deadline - a.deadline)) {
    takePlot(plot, state.now);
  }
  for (const [name, card] of cards) {
    // An answer from before the picture was drawn says nothing about it.
    if (!alive.has(name) && card.since < state.now) dropCard(name);
  }
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
  const closing = [...cards.values()].some((card) => card.deadline - serverNow() < 1);
  setTimeout(poll, closing ? 500 : 2000);
}

function tick() {
  cards.forEach(showLife);
  showCount();
}

$("order").addEventListener("submit", order);
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
