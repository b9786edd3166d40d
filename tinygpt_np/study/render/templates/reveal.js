"use strict";
// Reveal mode: hides the lines of the backward and shows them again one at a time.

const hideable = linesInOrder();
const nextLine = document.getElementById("next-line"), hideAgain = document.getElementById("hide-again");

document.addEventListener("mode", ({ detail: mode }) => {
  if (mode === "reveal" && !document.querySelector(".line > .reveal")) hideAll();
});
nextLine.addEventListener("click", () => {
  const line = hideable.find(isConcealed);
  reveal(line);
  line.scrollIntoView({ block: "center" });
});
hideAgain.addEventListener("click", hideAll);

function isConcealed(line) {
  return line.classList.contains("concealed");
}

function hideAll() {
  for (const line of hideable) {
    line.querySelector(":scope > .reveal")?.remove();
    line.append(revealButton(line));
    line.classList.add("concealed");
  }
  showProgress();
}

/** A button in place of a hidden line, with the left-hand side and the shape of the line as a hint. */
function revealButton(line) {
  const code = line.querySelector("code"), shape = code.querySelector(".shape");
  const hint = code.textContent.match(/^\s*(return|[\w\s,.[\]"']+?\+?=(?!=))/)?.[1].trim() ?? "";
  const button = make("button", { type: "button", class: "reveal" },
    make("span", { class: "visually-hidden" }, `Reveal line ${line.querySelector(".number").textContent}: `),
    make("code", {}, `${hint} …`), " ", shape?.cloneNode(true) ?? null);
  button.addEventListener("click", () => {
    reveal(line);
    const next = hideable.find(isConcealed)?.querySelector(".reveal") ?? hideAgain;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "center" });
  });
  return button;
}

function reveal(line) {
  line.classList.remove("concealed");
  showProgress();
}

function showProgress() {
  const count = hideable.filter((line) => !isConcealed(line)).length;
  document.getElementById("progress").textContent = `${count} of ${hideable.length} lines revealed`;
  nextLine.disabled = count === hideable.length;
  if (nextLine.disabled && document.activeElement === nextLine) hideAgain.focus();
}
