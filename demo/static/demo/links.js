// Links to an upload, to be passed on: the one that ends with it, and as many as one wants that work once.
import { $, tell } from "./board.js";
import { post } from "./server.js";

const COPIED = 2000; // ms for which a button says so

export function fillUpload(element, { title, url, one_time_link: maker }) {
  const file = element.querySelector("a");
  file.textContent = title;
  file.href = url;
  for (const unseen of element.querySelectorAll(".unseen")) unseen.textContent = ` to ${title}`;
  element.querySelector(".copy").addEventListener("click", ({ currentTarget }) => copy(currentTarget, file.href));
  element.querySelector(".once").addEventListener("click", () => makeLink(maker, element, title));
}

async function makeLink(maker, element, title) {
  const csrfmiddlewaretoken = $("upload").elements.csrfmiddlewaretoken.value;
  try {
    const { ok, answer } = await post(maker, new URLSearchParams({ csrfmiddlewaretoken }));
    if (!ok) throw new Error(maker);
    showLink(element, answer.url, title);
    tell(`A link to ${title} that works once is ready.`);
  } catch {
    tell(`There is no link to ${title}: its time may be up.`);
  }
}

function showLink(element, url, title) {
  const item = $("once-item").content.firstElementChild.cloneNode(true);
  const [link, button] = item.children;
  for (const unseen of item.querySelectorAll(".unseen")) unseen.textContent = ` to ${title}`;
  link.href = url;
  link.addEventListener("click", () => {
    item.classList.add("used");
    button.disabled = true; // it leads nowhere any more
  });
  button.addEventListener("click", () => copy(button, link.href));
  element.querySelector(".once-links").append(item);
  link.focus();
}

async function copy(button, url) {
  const words = button.firstChild.textContent;
  try {
    await navigator.clipboard.writeText(url);
    button.firstChild.textContent = "Copied";
    tell("The link is copied.");
  } catch { // not allowed, or no TLS: then by hand
    prompt("Copy this link:", url);
  }
  setTimeout(() => { button.firstChild.textContent = words; }, COPIED);
}
