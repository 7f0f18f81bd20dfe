"use strict";
// Pictures open large: by a click, a tap, or Enter on the focused one. Escape closes, arrows go to the next.
const zooms = [...document.querySelectorAll(".zoom")];
const dialog = document.querySelector("dialog");
const large = dialog.querySelector("img");
let shown = 0;

function show(i) {
  shown = (i + zooms.length) % zooms.length;
  const small = zooms[shown].querySelector("img");
  large.src = small.src;
  large.alt = small.alt;
  dialog.querySelector("figcaption").textContent = small.alt;
  if (!dialog.open) dialog.showModal();
}

zooms.forEach((zoom, i) => zoom.addEventListener("click", () => show(i)));
large.addEventListener("click", () => dialog.close());
dialog.querySelectorAll("[data-step]").forEach((button) =>
  button.addEventListener("click", () => show(shown + Number(button.dataset.step))));
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(shown + 1);
  if (event.key === "ArrowLeft") show(shown - 1);
});
dialog.addEventListener("close", () => zooms[shown].focus());
