"use strict";
const cards = [...document.querySelectorAll(".card")];
const search = document.getElementById("search");
const verdict = document.getElementById("verdict");
const reason = document.getElementById("reason");
const count = document.getElementById("count");
function show() {
  const words = search.value.trim().toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const data = card.dataset;
    const wanted = data.text.includes(words) && (!verdict.value || data.verdict === verdict.value)
      && (!reason.value || data.reason === reason.value);
    card.hidden = !wanted;
    shown += wanted;
  }
  count.textContent = `${shown} of ${cards.length}`;
}
function follow() {
  const card = document.getElementById(location.hash.slice(1));
  if (!card || !card.hidden) return;
  search.value = verdict.value = reason.value = "";
  show();
  card.scrollIntoView();
}
for (const control of [search, verdict, reason]) control.addEventListener("input", show);
document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", follow);
show();
