"use strict";
const SVG = "http://www.w3.org/2000/svg";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Colours: the choice is kept where the browser lets a page of this kind keep anything.
const theme = document.getElementById("theme");
const kept = {
  get() { try { return localStorage.getItem("d2pd-theme") || ""; } catch { return ""; } },
  set(value) { try { localStorage.setItem("d2pd-theme", value); } catch { /* not kept */ } },
};
function paint(value) {
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
}
theme.value = kept.get();
paint(theme.value);
theme.addEventListener("change", () => { paint(theme.value); kept.set(theme.value); });

// Charts: values under the pointer, lines that can be hidden.
const tip = document.getElementById("tip");
function nearest(points, x) {
  let best = points[0];
  for (const point of points) if (Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
  return best;
}
function setUpChart(figure) {
  const plot = figure.querySelector(".plot");
  if (!plot) return;
  const lines = JSON.parse(plot.dataset.lines);
  const cursor = plot.querySelector(".cursor");
  const isShown = (number) => !plot.querySelector(`.series[data-line="${number}"]`).hasAttribute("hidden");
  const places = [...new Set(lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  let at = -1;
  function show(x, left, top) {
    const shown = lines.filter((_, number) => isShown(number));
    if (!shown.length) return hide();
    const heads = shown.map((line) => nearest(line.points, x));
    const head = heads.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
    const rows = shown.map((line, number) => [line.name, heads[number]]).filter(([, point]) => Math.abs(point[0] - head[0]) < 12);
    tip.textContent = [`${plot.dataset.x} ${head[2]}`, ...rows.map(([name, point]) => `${name}: ${point[3]}`)].join("\n");
    cursor.setAttribute("x1", head[0]);
    cursor.setAttribute("x2", head[0]);
    cursor.setAttribute("visibility", "visible");
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(left + 14, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(top + 14, innerHeight - tip.offsetHeight - 4))}px`;
  }
  function hide() {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
  }
  plot.addEventListener("pointermove", (event) => {
    const frame = plot.getBoundingClientRect();
    show(((event.clientX - frame.left) / frame.width) * plot.viewBox.baseVal.width, event.clientX, event.clientY);
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    at = Math.max(0, Math.min(places.length - 1, at + step));
    const frame = plot.getBoundingClientRect();
    show(places[at], frame.left + (places[at] / plot.viewBox.baseVal.width) * frame.width, frame.top + frame.height / 3);
  });
  for (const button of all(".legend button", figure)) {
    button.addEventListener("click", () => {
      const series = plot.querySelector(`.series[data-line="${button.dataset.line}"]`);
      const isOn = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isOn));
      series.toggleAttribute("hidden", !isOn);
    });
  }
}
all(".chart").forEach(setUpChart);

// Gallery: a card is shown if it fits every choice; a miss has no score and fits any.
function setUpGallery(part) {
  const form = part.querySelector(".filter");
  const cards = all(".card", part);
  const { kind, reason, split, band, score } = form.elements;
  const scores = cards.filter((card) => card.dataset.score).map((card) => Number(card.dataset.score));
  if (scores.length) {
    score.min = String(Math.floor(Math.min(...scores) * 100) / 100);
    score.max = String(Math.ceil(Math.max(...scores) * 100) / 100);
    score.setAttribute("value", score.min);
    score.value = score.min;
  } else score.disabled = true;
  function fits(card) {
    const { kind: own, reason: why, splits, band: height, score: value } = card.dataset;
    return (!kind.value || own === kind.value) && (!reason.value || why === reason.value)
      && (!split.value || JSON.parse(splits).includes(split.value)) && (!band.value || height === band.value)
      && (!value || Number(value) >= Number(score.value));
  }
  function apply() {
    let shown = 0;
    for (const card of cards) {
      card.hidden = !fits(card);
      shown += !card.hidden;
    }
    form.querySelector("output").textContent = Number(score.value).toFixed(2);
    form.querySelector(".count").textContent = `${shown} of ${cards.length} shown`;
    part.querySelector(".nothing").hidden = shown > 0;
  }
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const card of cards) card.querySelector(".open").addEventListener("click", () => view(cards, card));
  apply();
}

// The viewer: the whole frame of a card, with all its boxes, and the neighbours by arrow keys.
const frames = JSON.parse(document.getElementById("frames").textContent);
const viewer = document.getElementById("viewer");
const picture = viewer.querySelector(".viewer-picture");
const showBoxes = document.getElementById("show-boxes");
let seen = { cards: [], card: null };
function view(cards, card) {
  seen = { cards, card };
  const [width, height] = card.dataset.size.split(" ").map(Number);
  const boxes = card.querySelector(".boxes").cloneNode(true);
  boxes.setAttribute("viewBox", `0 0 ${width} ${height}`);
  boxes.setAttribute("font-size", String(width / 48));
  boxes.toggleAttribute("hidden", !showBoxes.checked);
  picture.replaceChildren();
  if (frames[card.dataset.frame]) {
    const image = new Image();
    image.alt = card.querySelector(".file").textContent;
    image.src = frames[card.dataset.frame];
    picture.append(image);
  } else {
    const empty = document.createElement("span");
    empty.className = "no-picture";
    empty.textContent = "no picture";
    picture.append(empty);
  }
  picture.append(boxes);
  picture.style.aspectRatio = `${width} / ${height}`;
  picture.style.maxWidth = `${(76 * width) / height}vh`;
  viewer.querySelector(".viewer-words").className = `viewer-words ${card.dataset.kind.replaceAll(" ", "-")}`;
  viewer.querySelector(".viewer-words").replaceChildren(card.querySelector(".words").cloneNode(true));
  const shown = cards.filter((other) => !other.hidden);
  viewer.querySelector(".viewer-count").textContent = `${shown.indexOf(card) + 1} of ${shown.length}`;
  if (!viewer.open) viewer.showModal();
}
function step(by) {
  const shown = seen.cards.filter((card) => !card.hidden);
  const next = shown[(shown.indexOf(seen.card) + by + shown.length) % shown.length];
  if (next) view(seen.cards, next);
}
viewer.addEventListener("click", (event) => {
  if (event.target === viewer || event.target.closest("[data-close]")) viewer.close();
  const button = event.target.closest("[data-step]");
  if (button) step(Number(button.dataset.step));
});
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
showBoxes.addEventListener("change", () => picture.querySelector(".boxes").toggleAttribute("hidden", !showBoxes.checked));
all(".gallery-part").forEach(setUpGallery);
