// Errors of forms: shown beside their cause, and gone once it is fixed.
import { $, tell } from "./board.js";

const FAILED = "That did not work. Please try again in a moment.";

export function clearErrors(form) {
  for (const error of form.querySelectorAll(".error")) error.hidden = true;
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

export function showErrors(form, errors) {
  for (const [name, message] of Object.entries(errors)) {
    $(`${name}-error`).textContent = message;
    $(`${name}-error`).hidden = false;
    form.elements[name].setAttribute?.("aria-invalid", "true");
  }
  form.querySelector("[aria-invalid]")?.focus();
  tell(Object.values(errors).join(" "));
}

export function showFailure(form) {
  const error = form.querySelector("[role=alert]");
  error.textContent = FAILED;
  error.hidden = false;
}

export function clearFailures() {
  for (const error of document.querySelectorAll("form [role=alert]")) error.hidden = true;
}

export function mendsItself(form) {
  form.addEventListener("input", ({ target }) => {
    if (target.getAttribute("aria-invalid")) {
      target.removeAttribute("aria-invalid");
      $(`${target.name}-error`).hidden = true;
    }
  });
}
