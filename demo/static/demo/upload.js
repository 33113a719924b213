// Sends files straight to their store, and shows the progress of each.
import { $, tell } from "./board.js";
import { clearErrors, mendsItself, showErrors, showFailure } from "./form.js";
import { post } from "./server.js";

const form = $("upload");
const chosen = form.elements["upload-file"];

// Each file that is chosen or dropped is sent; `done` gets the upload that the site made of it.
export function sendsUploads(done) {
  mendsItself(form);
  for (const event of ["dragenter", "dragover"]) {
    chosen.addEventListener(event, () => form.classList.add("over"));
  }
  for (const event of ["dragleave", "drop", "dragend"]) {
    chosen.addEventListener(event, () => form.classList.remove("over"));
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  chosen.addEventListener("change", () => {
    clearErrors(form);
    const files = [...chosen.files];
    chosen.value = ""; // the same file may be chosen again
    for (const file of files) upload(file, done);
  });
}

async function upload(file, done) {
  const cancel = new AbortController();
  const row = showRow(file, cancel);
  try {
    const target = await begin(file);
    if (!target) return row.remove();
    cancel.signal.throwIfAborted();
    await send(target, file, (part) => { row.querySelector("progress").value = part; }, cancel.signal);
    const { ok, answer } = await post(form.dataset.end, fields({ receipt: target.receipt }));
    if (!ok) throw new Error("The site did not take it. Please try again.");
    if (row.contains(document.activeElement)) chosen.focus();
    row.remove();
    done(answer);
  } catch (error) {
    if (!cancel.signal.aborted) return showTrouble(row, error);
    if (row.contains(document.activeElement)) chosen.focus();
    row.remove();
    tell(`${file.name} was cancelled: nothing of it is kept.`);
  }
}

function fields(more) {
  const token = form.elements.csrfmiddlewaretoken.value;
  return new URLSearchParams({ csrfmiddlewaretoken: token, ...more });
}

async function begin(file) {
  const seconds = form.elements["upload-seconds"].value;
  const { ok, answer } = await post(form.action, fields({
    "upload-file": file.name, "upload-size": file.size, "upload-seconds": seconds,
  }));
  if (ok) return answer;
  if (answer.errors) showErrors(form, answer.errors);
  else showFailure(form);
  return null;
}

// Send a file where `get_upload_url` has said. Only XMLHttpRequest reports progress.
function send(target, file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const body = target.method === "POST" ? new FormData() : file;
    if (target.method === "POST") {
      for (const [name, value] of Object.entries(target.fields)) body.append(name, value);
      body.append("file", file); // S3 reads no field after it
    }
    const fail = () => reject(new Error("It did not arrive. Please try again."));
    request.open(target.method, target.url);
    for (const [name, value] of Object.entries(target.headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
    request.onload = () => (request.status < 300 ? resolve() : fail());
    request.onerror = fail;
    request.onabort = fail;
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

function showRow(file, cancel) {
  const row = $("sending-item").content.firstElementChild.cloneNode(true);
  row.querySelector(".name").textContent = file.name;
  row.querySelector(".unseen").textContent = ` ${file.name}`;
  row.querySelector("progress").ariaLabel = file.name;
  row.querySelector("button").addEventListener("click", () => cancel.abort());
  $("sending").append(row);
  return row;
}

function showTrouble(row, error) {
  const name = row.querySelector(".name").textContent;
  const button = row.querySelector("button").cloneNode(true); // without what cancels
  button.firstChild.textContent = "Close";
  button.addEventListener("click", () => { chosen.focus(); row.remove(); });
  row.querySelector("button").replaceWith(button);
  row.querySelector("progress").remove();
  const message = error.name === "TimeoutError" ? "The site takes too long. Please try again." : error.message;
  row.querySelector(".error").textContent = message;
  row.querySelector(".error").hidden = false;
  tell(`${name}: ${message}`);
}
