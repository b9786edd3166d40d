"use strict";
// Break it mode: one line of a backward is changed, and the reader finds it from what it returns.

const questions = study.questions;
// The id of the line chosen as the answer to each question.
const answers = questions.map(() => null);
let current = 0;

document.addEventListener("mode", ({ detail: mode }) => {
  clearQuestion();
  document.documentElement.style.removeProperty("--covered");
  if (mode === "break") ask(current);
});

const isRight = (index) => answers[index] === questions[index].id;
const numberOf = (id) => id.split(":")[1];

/** Shows a question, or its solution if it was answered. */
function ask(index) {
  clearQuestion();
  current = index;
  const question = questions[index], answer = answers[index];
  document.getElementById("question").replaceChildren(
    progress(),
    make("p", {}, "One line of ", make("code", {}, question.function), " was changed. ", make("b", {}, "Which one?"), " It now returns:"),
    make("ul", {}, ...question.symptoms.map(symptom)),
    answer ? solution(question, answer) : make("p", { class: "quiet" }, "Click the line, or press Tab until it has the focus, then Enter."),
  );
  for (const line of linesOf(question)) {
    if (answer) mark(line, question, answer);
    else line.append(choice(line, question));
    line.classList.add(answer ? "solved" : "asked");
  }
  bringIntoView(question);
}

/** Scrolls to the lines of a question, or on a phone, where it scrolls with them, to the question. */
function bringIntoView(question) {
  const about = document.getElementById("about-break");
  const isSticky = getComputedStyle(about).position === "sticky";
  document.documentElement.style.setProperty("--covered", isSticky ? `${about.offsetHeight + 8}px` : "1rem");
  const targets = isSticky ? [linesOf(question).at(-1), linesOf(question)[0]] : [about];
  for (const each of targets) each.scrollIntoView({ block: "nearest" });
}

/** The lines of the changed function, in the order of the file. */
function linesOf(question) {
  return [...document.querySelectorAll(`.line.back[id^="${question.function}:"]`)];
}

function progress() {
  const right = questions.filter((_, index) => isRight(index)).length;
  const done = answers.filter(Boolean).length;
  const button = (id, words, label, index) => {
    const found = make("button", { type: "button", id, "aria-label": label, disabled: questions[index] ? null : "" }, words);
    found.addEventListener("click", () => ask(index));
    return found;
  };
  return make("p", { class: "progress" },
    button("previous-question", "‹", "Previous question", current - 1),
    make("b", { id: "question-number" }, `Question ${current + 1} of ${questions.length}`),
    button("next-question", "›", "Next question", current + 1),
    make("span", { id: "score", class: "quiet" }, done ? `${right} of ${done} right` : ""));
}

/** What is wrong with a returned gradient. */
function symptom({ name, ok, problem, index, analytic, numeric }) {
  const words = ok ? " right"
    : ` ${problem}${numeric === null ? "" : `; at [${index.join(", ")}] it is ${short(analytic)} instead of ${short(numeric)}`}`;
  return make("li", {}, make("code", {}, name), make("span", { class: ok ? "good" : "bad" }, ok ? " ✓" : " ✗"), words);
}

/** A button in place of a line, with its code as it is in the broken function. */
function choice(line, question) {
  const written = line.querySelector("code"), shape = written.querySelector(".shape");
  const code = line.id === question.id ? make("code", { html: question.html }) : plainCode(written.innerHTML);
  // The shape in the comment is not part of the code.
  if (line.id === question.id && shape) code.append(" ", shape.cloneNode(true));
  const number = line.querySelector(".number").textContent;
  const button = make("button", { type: "button", class: "choice" },
    make("span", { class: "visually-hidden" }, `Line ${number}: `), code);
  button.addEventListener("click", () => {
    answers[current] = line.id;
    ask(current);
    document.getElementById("next").focus({ preventScroll: true });
  });
  return button;
}

/** Whether the answer is right, and why the line is wrong. */
function solution(question, answer) {
  const right = answer === question.id, number = numberOf(question.id);
  const chosen = question.lines[answer];
  const reason = chosen ? `is wrong, but only ${chosen.message || "as a consequence"}` : "does what it should";
  const last = current + 1 === questions.length;
  const next = make("button", { type: "button", id: "next" }, last ? "Start again" : "Next question");
  next.addEventListener("click", () => {
    if (last) answers.fill(null);
    ask(last ? 0 : current + 1);
    document.getElementById("question").focus({ preventScroll: true });
  });
  return make("div", { class: `message ${right ? "right" : "wrong"}` },
    make("p", {}, make("b", {}, right ? `✓ Right, it is line ${number}.` : `✗ Line ${numberOf(answer)} ${reason}. The wrong line is line ${number}.`)),
    make("p", {}, `The mistake: ${question.what}.`),
    make("p", {}, ...coded(`The check reports line ${number} first: ${question.message}`),
      ...coded(question.cause ? `; likely cause: ${question.cause}.` : ".")),
    next);
}

/** Marks a line of the solution. */
function mark(line, question, answer) {
  const found = question.lines[line.id], isIt = line.id === question.id;
  if (isIt)
    line.querySelector("code").after(make("div", { class: "changed" },
      make("del", {}, make("code", {}, question.after)), make("ins", {}, make("code", {}, question.before))));
  const [name, words] = isIt ? ["wrong", "✗ the wrong line"]
    : found ? ["inherited", `! ${found.message || "as a consequence"}`]
    : ["", line.dataset.status === "right" ? "✓ still right" : ""];
  if (name) line.dataset.broken = name;
  const yours = line.id === answer && !isIt ? "your answer " : "";
  line.append(make("span", { class: `badge broken ${name || "right"}` }, `${yours}${words}`));
}

function clearQuestion() {
  for (const added of document.querySelectorAll(".choice, .broken, .line > .changed")) added.remove();
  for (const line of document.querySelectorAll(".line.back")) {
    line.classList.remove("asked", "solved");
    delete line.dataset.broken;
  }
}
