// Lists of files with a deadline, counted down by the server's clock. The server describes each
// file by its name: {name, title, url, deadline, life}, in seconds.
export const $ = (id) => document.getElementById(id);
export const tell = (news) => { $("news").textContent = news; };
export const serverNow = () => Date.now() / 1000 + clockOffset;
export const setClock = (now) => { clockOffset = now - Date.now() / 1000; };
export const calm = matchMedia("(prefers-reduced-motion: reduce)");
const CLOSING = 5; // s
let clockOffset = 0; // s: the server's clock less this one's

export class Board {
  known = false; // whether the server has told lately what there is
  #shown = new Map(); // name -> what the server told, its element, and since when it is shown

  // `fill` sets up a new element for this list, `refill` updates what may have changed since.
  constructor(id, fill, refill = () => {}) {
    this.id = id;
    this.fill = fill;
    this.refill = refill;
  }

  // Show all files, as the server listed them at its time `now`.
  takeAll(files, now) {
    const alive = new Set(files.map((file) => file.name));
    for (const file of files.sort((a, b) => a.deadline - b.deadline)) this.#take(file, now);
    for (const [name, { since }] of this.#shown) {
      // A list from before the file was made says nothing about it.
      if (!alive.has(name) && since < now) this.#drop(name);
    }
  }

  // Show a file that has just been made, and bring it into view.
  welcome(file, now) {
    this.#take(file, now);
    this.tick();
    this.#shown.get(file.name).element.scrollIntoView({
      block: "nearest", behavior: calm.matches ? "auto" : "smooth",
    });
  }

  // Show what a visitor has changed about a file: an older list must not undo it.
  change(file, now) {
    this.#take(file, now);
    if (this.#shown.has(file.name)) this.#shown.get(file.name).since = now;
    this.tick();
  }

  tick() {
    this.#shown.forEach(showLife);
    const isEmpty = !$(this.id).childElementCount;
    $(`${this.id}-count`).textContent = this.known ? this.#shown.size : "–";
    $(`${this.id}-empty`).hidden = !(isEmpty && this.known);
    $(`${this.id}-unknown`).hidden = !(isEmpty && !this.known);
  }

  get closing() {
    return [...this.#shown.values()].some((file) => file.deadline - serverNow() < 1);
  }

  #take(file, now) {
    const shown = this.#shown.get(file.name);
    if (!shown && file.url) this.#add(file, now);
    if (!shown || now < shown.since) return;
    // For one that is being deleted the server sends the present time.
    if (file.deadline > now) shown.deadline = file.deadline;
    this.refill(shown.element, file);
  }

  #add(file, since) {
    const element = $(`${this.id}-item`).content.firstElementChild.cloneNode(true);
    element.dataset.name = file.name;
    this.fill(element, file);
    $(this.id).prepend(element);
    this.#shown.set(file.name, { ...file, element, since });
  }

  async #drop(name) {
    const { element, title, deadline } = this.#shown.get(name);
    this.#shown.delete(name);
    tell(`${title} was deleted, ${Math.max(0, serverNow() - deadline).toFixed(0)} seconds after its time.`);
    if (element.contains(document.activeElement)) $(`${this.id}-title`).focus();
    if (!calm.matches) await element.animate({ opacity: 0, transform: "scale(.94)" }, 600).finished;
    element.remove();
    this.tick();
  }
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
