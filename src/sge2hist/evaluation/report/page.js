"use strict";
// A picture that is pressed is shown as large as the window allows; arrow keys go through the pictures, Escape closes.
const buttons = [...document.querySelectorAll("button.enlarge")];
const dialog = document.createElement("dialog");
dialog.setAttribute("aria-label", "enlarged picture");
const large = document.createElement("img"); // joins the page with its first picture
const words = dialog.appendChild(document.createElement("p"));
document.body.append(dialog);
let shown = 0;

function show(number) {
  shown = (number + buttons.length) % buttons.length;
  const image = buttons[shown].querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  const room = Math.min((innerWidth * 0.9) / image.naturalWidth, (innerHeight * 0.8) / image.naturalHeight);
  large.style.width = `${Math.floor(image.naturalWidth * room)}px`;
  words.textContent = image.alt;
  if (!large.isConnected) dialog.prepend(large);
  if (!dialog.open) dialog.showModal();
}

buttons.forEach((button, number) => button.addEventListener("click", () => show(number)));
dialog.addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(shown + 1);
  if (event.key === "ArrowLeft") show(shown - 1);
});
