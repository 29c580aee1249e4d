"use strict";
// The answers of one reader: kept in this browser, downloaded as a file. Nothing here knows which images are real.
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const total = content.images.length;
  const stored = `sge2hist-quiz-${content.quiz}`;
  const $ = (id) => document.getElementById(id);
  const choices = [...document.querySelectorAll("[data-answer]")];
  let state = null; // what the file will hold
  let draft = null; // the image on the screen: {answer, confidence}
  let since = null; // when the clock was started; null while it stands
  let spent = 0; // ms on this image before that
  let kept = true;

  function read() {
    try {
      const found = JSON.parse(localStorage.getItem(stored));
      return found && Array.isArray(found.answers) && found.answers.length <= total ? found : null;
    } catch {
      return null;
    }
  }

  function save() {
    try {
      localStorage.setItem(stored, JSON.stringify({ ...state, draft: draft && { ...draft, comment: $("comment").value, spent: now() } }));
      kept = true;
    } catch {
      kept = false;
    }
    $("message").textContent = kept ? "" : "This browser keeps no data for this page: finish without closing it, then download.";
  }

  const now = () => spent + (since === null ? 0 : performance.now() - since);
  function clock(on) {
    if (on && since === null) since = performance.now();
    if (!on && since !== null) {
      spent = now();
      since = null;
    }
  }

  function pause(on) {
    clock(!on);
    $("paused").hidden = !on;
    $("patch").hidden = on;
    $("pause").firstChild.textContent = on ? "Go on " : "Pause ";
    if (!on) $("question").focus();
    save();
  }
  const isPaused = () => !$("paused").hidden;

  function show(section) {
    for (const id of ["welcome", "trial", "end"]) $(id).hidden = id !== section;
    $("file").hidden = section === "welcome";
    $("download").className = section === "end" ? "strong" : "";
  }

  function mark() {
    for (const button of choices) {
      const on = button.dataset.answer === draft.answer;
      button.setAttribute("aria-pressed", on);
    }
    for (const button of scale) button.setAttribute("aria-pressed", Number(button.dataset.confidence) === draft.confidence);
    $("next").disabled = !(draft.answer && draft.confidence);
  }

  function set(part) {
    if (isPaused()) return;
    draft = { ...draft, ...part };
    mark();
    save();
  }

  async function trial(begun) {
    const number = state.answers.length;
    if (number === total) return finish();
    show("trial");
    since = null;
    spent = begun ? begun.spent : 0;
    draft = { answer: begun ? begun.answer : null, confidence: begun ? begun.confidence : null };
    $("comment").value = begun ? begun.comment : "";
    $("count").textContent = `${number + 1} of ${total}`;
    $("progress").max = total;
    $("progress").value = number;
    $("paused").hidden = true;
    $("patch").hidden = false;
    $("patch").src = `data:image/png;base64,${content.images[number]}`;
    mark();
    $("question").focus();
    await $("patch").decode().catch(() => {});
    clock(!document.hidden);
    save();
  }

  function next() {
    if ($("next").disabled || isPaused()) return;
    clock(false);
    const seconds = Math.round(spent) / 1000;
    state.answers.push({
      image: state.answers.length + 1, answer: draft.answer, confidence: draft.confidence, seconds, comment: $("comment").value.trim(),
    });
    draft = null;
    trial(null);
  }

  function finish() {
    state.finished = state.finished || new Date().toISOString();
    $("patch").removeAttribute("src");
    $("summary").textContent = `${total} of ${total} answered by ${state.reader}. Download the file and send it to the person who asked you.`;
    show("end");
    save();
    $("thanks").focus();
  }

  function download() {
    const { draft: _unused, ...whole } = state;
    const file = { kind: "quiz_answers", format_version: 1, quiz: content.quiz, n: total, ...whole };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1) + "\n"], { type: "application/json" }));
    const safe = state.reader.replace(/[^\p{L}\p{N}_-]+/gu, "_");
    link.download = `answers-${safe}-${content.quiz.slice(0, 6)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    const left = total - state.answers.length;
    $("message").textContent = `Saved as ${link.download}${left ? `; ${left} images are not answered yet` : ""}.`;
  }

  const scale = content.confidences.map((level) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = level;
    button.dataset.confidence = level;
    button.addEventListener("click", () => set({ confidence: level }));
    return button;
  });
  document.querySelector(".scale").append(...scale);
  document.querySelector(".total").textContent = total;
  document.querySelector(".side").textContent = content.patch_um;
  for (const button of choices) button.addEventListener("click", () => set({ answer: button.dataset.answer }));
  $("next").addEventListener("click", next);
  $("pause").addEventListener("click", () => pause(!isPaused()));
  $("download").addEventListener("click", download);
  $("comment").addEventListener("change", save);
  $("restart").addEventListener("click", () => {
    if (!confirm("Forget all answers in this browser and start over?")) return;
    localStorage.removeItem(stored);
    location.reload();
  });
  $("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const reader = $("reader").value.trim();
    if (!reader) return;
    state = { reader, experience: $("experience").value.trim(), started: new Date().toISOString(), finished: null, answers: [] };
    trial(null);
  });
  document.addEventListener("visibilitychange", () => {
    if ($("trial").hidden || isPaused()) return;
    clock(!document.hidden);
    if (document.hidden) save();
  });
  document.addEventListener("keydown", (event) => {
    if ($("trial").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const writing = event.target === $("comment");
    if (writing) {
      if (event.key === "Escape") $("question").focus();
      return;
    }
    const key = event.key.toLowerCase();
    const isChoice = "answer" in event.target.dataset || "confidence" in event.target.dataset;
    const activates = event.target instanceof HTMLButtonElement && !isChoice; // Enter presses that button
    if (key === "r") set({ answer: "real" });
    else if (key === "g") set({ answer: "generated" });
    else if (key === "p") pause(!isPaused());
    else if (content.confidences.includes(Number(key))) set({ confidence: Number(key) });
    else if (key === "c" && !isPaused()) $("comment").focus();
    else if (key === "enter" && !activates) next();
    else return;
    event.preventDefault();
  });

  const found = read();
  if (found) {
    const { draft: begun, ...rest } = found;
    state = rest;
    trial(begun);
  }
})();
