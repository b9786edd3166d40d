"use strict";
// Predict: the lines of the backward are hidden, and the learner writes them.

const asked = new Map();
const lines = [
  ...study.rows.flatMap((row) => row.backward), ...(study.closed?.lines ?? []),
].filter((line) => line.predict);
// In the order in which they run, the steps before the closed form.
lines.sort((a, b) =>
  study.functions.indexOf(a.function) - study.functions.indexOf(b.function) || a.line - b.line);

document.addEventListener("mode", ({ detail: mode }) => {
  if (mode !== "predict") return;
  if (!asked.size) for (const line of lines) ask(line);
  document.getElementById("disk").hidden = served;
  tellProgress();
});

document.getElementById("next-line").addEventListener("click", () => goToNext());

/** Puts a question in the place of a line. */
function ask(line) {
  const place = document.getElementById(line.id), id = `guess-${line.id}`;
  const [, left = ""] = line.text.match(/^([\w\s,.[\]"']+?\+?=)(?!=)/) ?? [];
  const input = make("input", {
    id, maxlength: 300, autocomplete: "off", autocapitalize: "off", spellcheck: "false", placeholder: "…",
  });
  const says = make("output", { class: "says", for: id });
  const form = make("form", { class: "guess", novalidate: "" },
    make("label", { for: id }, left || `${line.gradients[0].name}, changed in place:`),
    line.shape ? make("span", { class: "shape" }, line.shape) : null,
    served ? input : null,
    served ? make("button", { type: "submit" }, "Check") : null,
    make("button", { type: "button", class: "show" }, "Show me"), says);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (served && !input.value.trim()) {
      says.className = "says odd";
      says.textContent = "! write a line first";
    } else if (served) check(line, whole(left, input.value.trim()), says);
  });
  form.querySelector(".show").addEventListener("click", () => {
    settle(line, "shown", "shown");
    goToNext(line);
  });
  place.classList.add("hidden-line");
  place.append(form);
  asked.set(line.id, { line, form, state: "open" });
}

/** What is typed may have its left side or not. */
function whole(left, typed) {
  const hasLeft = /^[\w\s,.[\]"']+?\+?=(?!=)/.test(typed);
  return left && !hasLeft ? `${left} ${typed}` : typed;
}

async function check(line, text, says) {
  says.className = "says";
  says.textContent = "…";
  let answer;
  try {
    const response = await fetch("predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ target: study.name, id: line.id, text }),
    });
    answer = response.ok ? await response.json()
      : { status: "refused", says: "The program could not read this line." };
  } catch {
    answer = { status: "refused", says: "The program that checks lines does not answer; is it still running?" };
  }
  if (answer.status === "right") {
    const same = text.replace(/\s/g, "") === line.text.replace(/\s/g, "");
    settle(line, "right", `✓ right to ${answer.digits} digits${same ? "" : `, as ${text}`}`);
    goToNext(line);
    return;
  }
  const sign = answer.status === "wrong" ? "✗" : "!";
  says.classList.add(answer.status === "wrong" ? "wrong" : "odd");
  says.textContent = `${sign} ${answer.says}${answer.cause ? `; likely cause: ${answer.cause}` : ""}`;
}

/** Shows the line again, with what came of it. */
function settle(line, state, words) {
  const question = asked.get(line.id), place = document.getElementById(line.id);
  question.state = state;
  question.form.remove();
  place.classList.remove("hidden-line");
  place.querySelector(".guessed")?.remove();
  place.append(make("p", { class: `guessed says ${state}` }, words));
  tellProgress();
}

function goToNext(after = null) {
  const open = [...asked.values()].filter(({ state }) => state === "open");
  const from = after ? lines.indexOf(after) : -1;
  const next = open.find(({ line }) => lines.indexOf(line) > from) ?? open[0];
  if (!next) {
    const progress = document.getElementById("progress");
    progress.scrollIntoView({ block: "center" });
    return progress.focus({ preventScroll: true });
  }
  next.form.scrollIntoView({ block: "center" });
  (next.form.querySelector("input") ?? next.form.querySelector(".show")).focus({ preventScroll: true });
}

function tellProgress() {
  const states = [...asked.values()].map(({ state }) => state);
  const count = (state) => states.filter((each) => each === state).length;
  const seen = count("shown") ? `, ${count("shown")} shown` : "";
  const done = count("open") ? "" : ". That is all of it.";
  document.getElementById("progress").textContent =
    `${count("right")} of ${states.length} lines written${seen}${done}`;
  document.getElementById("next-line").hidden = !count("open");
}
