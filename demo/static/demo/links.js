// Links to an upload, to pass on: one that ends with it, and any number that work once.
// All of them can be revoked. Its row can be deleted too: then the file goes by itself.
import { $, tell } from "./board.js";
import { post } from "./server.js";

const COPIED = 2000; // ms for which a button says so

// `changed` gets what the site says of the upload after a change.
export function fillUpload(element, { title, url, one_time_link: maker, revoke_links: revoker, delete_row: deleter }, changed) {
  const file = element.querySelector("a");
  file.textContent = title;
  file.href = url;
  for (const unseen of element.querySelectorAll(".unseen")) unseen.textContent = ` ${unseen.dataset.word ?? "to"} ${title}`;
  element.querySelector(".copy").addEventListener("click", ({ currentTarget }) => copy(currentTarget, file.href));
  element.querySelector(".once").addEventListener("click", () => makeLink(maker, element, title));
  element.querySelector(".revoke").addEventListener("click", () => revokeLinks(revoker, element, title, changed));
  element.querySelector(".delete").addEventListener("click", () => deleteRow(deleter, title, changed));
}

// Somebody may have revoked the links, or deleted the row: a file without a row has no link.
export function refillUpload(element, { url }) {
  const file = element.querySelector("a");
  if (url) file.href = url;
  else letGo(element, file);
}

function letGo(element, file) {
  for (const button of element.querySelectorAll(".once, .revoke, .delete")) {
    if (button === document.activeElement) file.focus();
    button.remove();
  }
  element.querySelector(".no-row").hidden = false;
}

async function send(url) {
  const csrfmiddlewaretoken = $("upload").elements.csrfmiddlewaretoken.value;
  const { ok, answer } = await post(url, new URLSearchParams({ csrfmiddlewaretoken }));
  if (!ok) throw new Error(url);
  return answer;
}

async function makeLink(maker, element, title) {
  try {
    showLink(element, (await send(maker)).url, title);
    tell(`A link to ${title} that works once is ready.`);
  } catch {
    tell(`There is no link to ${title}: its time may be up.`);
  }
}

async function revokeLinks(revoker, element, title, changed) {
  try {
    changed(await send(revoker));
    element.querySelector(".once-links").replaceChildren();
    tell(`The links to ${title} that were given out no longer work. It has a new one.`);
  } catch {
    tell(`The links to ${title} were not revoked: its time may be up.`);
  }
}

async function deleteRow(deleter, title, changed) {
  try {
    changed(await send(deleter));
    tell(`The row of ${title} is deleted. Its file goes by itself.`);
  } catch {
    tell(`The row of ${title} was not deleted: its time may be up.`);
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
