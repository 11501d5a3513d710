"use strict";
// The page hears all rows at first, and then those that change. It decides nothing itself: every action goes to the
// server, and what comes back as news is drawn. So two pages that are open at once always agree.

const facts = JSON.parse(document.getElementById("facts").textContent);
const $ = (id) => document.getElementById(id);
const ROW = 40; // px, as in the style sheet
const COLUMNS = [
  { key: "picture", title: "", width: 52 },
  { key: "name", title: "frame" },
  { key: "verdict", title: "verdict", width: 86 },
  { key: "reason", title: "reason", width: 78 },
  { key: "inconsistency", title: "incons.", width: 88, number: true },
  { key: "image", title: "image", width: 56, number: true, known: true },
  { key: "pose", title: "pose", width: 48, number: true, known: true },
  { key: "time", title: "time", width: 48, number: true, known: true },
  { key: "blur_px", title: "blur px", width: 66, number: true, known: true, digits: 1 },
  { key: "exposure_stops", title: "stops", width: 56, number: true, known: true, digits: 1 },
  { key: "weight", title: "weight", width: 66, number: true, live: true },
  { key: "residual", title: "residual", width: 74, number: true, live: true, digits: 4 },
  { key: "last", title: "last", width: 66, number: true, live: true, digits: 4 },
  { key: "seen", title: "seen", width: 60, number: true, live: true, digits: 0 },
  { key: "label", title: "label", width: 130 },
];

const NAME_WIDTH = 100; // px, the least that the frame's name has

const written = (column, value) =>
  typeof value === "number" ? value.toFixed(column.digits ?? 2).replace(/^-(0\.?0*)$/, "$1") : "";

let rows = [];
let state = { selected: null, marked: [], threshold: 0, decided: 0, suggested: 0, message: "" };
let order = [];
let sorting = { key: "inconsistency", down: true };
let dragging = false;
const drawnRows = new Map(); // by frame: the element, and the row as it was drawn
const due = new Set(); // what is to be drawn

function draw(...what) {
  // Not at the screen's next frame: a heavy scene takes its time for one.
  if (!due.size) setTimeout(drawDue, 25);
  for (const one of what) due.add(one);
}

function drawDue() {
  const now = new Set(due);
  due.clear();
  if (now.has("choices")) drawChoices();
  if (now.has("order")) arrange();
  if (now.has("counts")) drawCounts();
  if (now.has("reveal")) reveal();
  if (now.has("rows") || now.has("order")) drawRows();
  if (now.has("frame")) drawFrame();
}

function columns() {
  const shown = (c) => (c.known ? rows.some((row) => row[c.key] != null) : !c.live || rows.some((row) => row[c.key] !== undefined));
  return COLUMNS.filter(shown);
}

// One after the other: who presses n and k means the frame that n led to. And it is the frame that this page shows
// that is decided about, wherever another page has gone meanwhile.
let asked = Promise.resolve();
function act(action, more = {}) {
  asked = asked.then(() => ask(action, action === "keep" || action === "drop" ? { frame: state.selected } : more));
  return asked;
}

async function ask(action, more) {
  const answer = await fetch("act", {
    method: "POST",
    headers: { "X-MTCM": facts.secret, "Content-Type": "application/json" },
    body: JSON.stringify({ action, ...more }),
  }).catch(() => null);
  if (!answer || !answer.ok) {
    $("message").textContent = answer ? await answer.text() : "The viewer has been stopped.";
    return;
  }
  look((await answer.json()).selected);
}

function look(selected) {
  if (selected === state.selected) return;
  state.selected = selected;
  takeKeyboard();
  draw("reveal", "frame", "rows");
}

// The scene takes the keyboard when somebody clicks in it; it gives it back when that chose frames, or when the
// pointer leaves it.
function takeKeyboard() {
  if (document.activeElement !== $("scene")) return;
  $("scene").blur();
  window.focus();
}

const picture = (i, side) => `picture?frame=${i}&side=${side}&of=${facts.opening}`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "title") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function verdict(row) {
  const span = element("span", {}, `${facts.signs[row.verdict]} ${row.verdict}`);
  span.style.color = facts.colours[row.verdict];
  return span;
}

function arrange() {
  const words = $("search").value.toLowerCase();
  const [reason, label] = [$("reason").value, $("label").value];
  const { key, down } = sorting;
  const marked = state.marked.length ? new Set(state.marked) : null;
  order = rows
    .map((_, i) => i)
    .filter((i) => {
      const row = rows[i];
      return (
        (!marked || marked.has(i)) &&
        row.name.toLowerCase().includes(words) &&
        (!reason || (reason[0] === "=" ? row.verdict === reason.slice(1) : row.reason === reason)) &&
        (!label || row.label.split(", ").includes(label))
      );
    });
  const known = (value) => value !== null && value !== undefined && value !== "";
  if (key !== "picture")
    order.sort((a, b) => {
      const [x, y] = [rows[a][key], rows[b][key]];
      if (!known(x) || !known(y)) return known(y) - known(x) || a - b; // what is not known comes last
      const sign = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return (down ? -sign : sign) || a - b;
    });
  $("shown").textContent = order.length === rows.length ? `${rows.length} frames` : `${order.length} of ${rows.length}`;
}

function drawRows() {
  const box = $("scroll");
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 5);
  const last = Math.min(order.length, first + Math.ceil(box.clientHeight / ROW) + 12);
  const visible = order.slice(first, last);
  for (const i of drawnRows.keys()) if (!visible.includes(i)) drawnRows.delete(i);
  const spacer = (count) => {
    const cell = element("td", { colSpan: columns().length });
    cell.style.height = `${count * ROW}px`;
    return element("tr", { className: "spacer" }, cell);
  };
  $("body").replaceChildren(
    spacer(first),
    ...visible.map(drawnRow),
    spacer(order.length - last),
  );
}

function drawnRow(i) {
  const known = drawnRows.get(i);
  const key = JSON.stringify([rows[i], i === state.selected, columns().length]);
  if (known && known.key === key) return known.drawn;
  const drawn = newRow(i);
  drawnRows.set(i, { key, drawn });
  return drawn;
}

function newRow(i) {
  const row = rows[i];
  const cells = columns().map((column) => {
    const cell = element("td", { className: column.number ? "number" : column.key });
    const value = row[column.key];
    if (column.key === "picture")
      cell.append(element("img", { src: picture(i, 96), alt: "", loading: "lazy", onerror: (e) => e.target.remove() }));
    else if (column.key === "verdict") cell.append(verdict(row));
    else if (column.number) cell.textContent = written(column, value);
    else cell.append(element("bdi", {}, String(value ?? "")));
    if (column.key === "name") cell.title = value;
    if (column.key === "reason" && row.decided_by === "person") cell.append(" (you)");
    return cell;
  });
  return element("tr", { "aria-selected": i === state.selected, "data-frame": i, onclick: () => act("select", { frame: i }) }, ...cells);
}

function drawHead() {
  const widths = columns().map((column) => column.width ?? NAME_WIDTH);
  $("head").closest("table").style.minWidth = `${widths.reduce((sum, width) => sum + width, 0)}px`;
  $("head").replaceChildren(
    ...columns().map((column) => {
      const cell = element("th", { scope: "col", tabIndex: 0 }, column.title);
      if (column.width) cell.style.width = `${column.width}px`;
      if (column.key === sorting.key) cell.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
      const sort = () => {
        sorting = { key: column.key, down: sorting.key === column.key ? !sorting.down : Boolean(column.number) };
        drawHead();
        draw("order");
      };
      cell.onclick = sort;
      cell.onkeydown = (event) => event.key === "Enter" && sort();
      return cell;
    }),
  );
}

function drawFrame() {
  const row = rows[state.selected];
  $("message").textContent = state.message;
  if (!row) {
    $("pictures").replaceChildren(element("p", { className: "empty" }, "Click a row or a camera, or press n for the most inconsistent frame."));
    $("about").replaceChildren();
    return;
  }
  const figure = (i, words) =>
    element(
      "figure",
      {},
      element("img", { src: picture(i, 640), alt: rows[i].name }),
      element("figcaption", { title: rows[i].name }, words),
    );
  const pictures = [figure(state.selected, row.name)];
  if (row.odds !== null) pictures.push(figure(row.odds, `most at odds with: ${rows[row.odds].name}`));
  $("pictures").replaceChildren(...pictures);
  const numbers = ["inconsistency", "image", "pose", "time", "weight", "residual", "last", "seen"]
    .filter((key) => typeof row[key] === "number")
    .map((key) => `${key} ${written(COLUMNS.find((column) => column.key === key), row[key])}`);
  const why = [row.reason, `decided by ${row.decided_by}`, row.label, row.words].filter(Boolean).join(" · ");
  const found = Object.entries(row.evidence).map(([key, value]) => `${key.replaceAll("_", " ")}: ${Number(value).toPrecision(3)}`);
  $("about").replaceChildren(
    element("div", {}, verdict(row), ` ${why ? " · " + why : ""}`),
    element("div", { className: "numbers", title: found.join("\n") }, numbers.join(" · ")),
  );
}

function drawCounts() {
  const found = { kept: 0, repaired: 0, dropped: 0 };
  for (const row of rows) found[row.verdict]++;
  const parts = Object.entries({ ...found, suggested: state.suggested });
  $("counts").replaceChildren(
    ...parts.flatMap(([name, number], i) => {
      const part = element("b", { "data-count": name }, `${facts.signs[name]} ${number}`);
      part.style.color = facts.colours[name];
      return [i ? " · " : "", part, ` ${name}`];
    }),
  );
  $("marked").hidden = !state.marked.length;
  $("marked").firstElementChild.textContent = `${state.marked.length} of ${rows.length} marked`;
  const trial = state.threshold !== state.decided;
  if (!dragging) $("threshold").value = state.threshold;
  $("value").textContent = trial
    ? `${state.threshold.toFixed(2)}, tried out (decided by: ${state.decided.toFixed(2)})`
    : `${state.threshold.toFixed(2)}, as decided`;
  $("value").title = trial ? `To decide so: ns-mtcm-filter --threshold ${state.threshold.toFixed(2)}` : "";
}

const reasons = new Set();
function drawChoices() {
  for (const row of rows) reasons.add(row.reason);
  const choice = (id, all, values) => {
    const chosen = $(id).value;
    const options = values.map(([value, words]) => element("option", { value }, words));
    $(id).replaceChildren(element("option", { value: "" }, all), ...options);
    $(id).value = values.some(([value]) => value === chosen) ? chosen : "";
  };
  const unique = (all) => [...new Set(all)].filter(Boolean).sort().map((value) => [value, value]);
  const verdicts = ["kept", "repaired", "dropped"].map((name) => [`=${name}`, name]);
  choice("reason", "all verdicts", [...verdicts, ...unique(rows.map((row) => row.reason)).map(([v]) => [v, `reason: ${v}`])]);
  choice("label", "all labels", unique(rows.flatMap((row) => row.label.split(", "))));
}

function hear(news) {
  const before = state;
  const { rows: changed, ...rest } = news;
  const [width, count] = [columns().length, rows.length];
  for (const [i, row] of Object.entries(changed)) {
    if (rows[i] && (row.inconsistency !== rows[i].inconsistency || row.label !== rows[i].label)) draw("choices", "order");
    rows[i] = row;
  }
  if (columns().length !== width || !count) drawHead();
  if (rows.length !== count) draw("order", "frame");
  const moves = ["verdict", "reason", "weight", "residual", "last", "seen"].includes(sorting.key) || $("reason").value;
  if (moves && Object.keys(changed).length) draw("order");
  if (rest.marked.join() !== before.marked.join()) {
    takeKeyboard();
    draw("order");
  }
  state = { ...rest, selected: before.selected };
  look(rest.selected);
  // Reasons and labels are few, and a threshold that is dragged changes none of them for long.
  if (Object.values(changed).some((row) => !reasons.has(row.reason))) draw("choices");
  if (state.message !== before.message || changed[state.selected]) draw("frame");
  draw("counts", "rows");
}

function reveal() {
  const place = order.indexOf(state.selected);
  const box = $("scroll");
  if (place < 0) return;
  const top = place * ROW;
  if (top < box.scrollTop || top > box.scrollTop + box.clientHeight - 3 * ROW) box.scrollTop = top - box.clientHeight / 3;
}

let waiting = null;
function tryThreshold(value) {
  const own = Math.abs(value - state.decided) < 0.005;
  const send = () => act("threshold", { value: own ? state.decided : value });
  if (waiting) {
    waiting.next = send;
    return;
  }
  waiting = { next: null }; // one request at a time: the last one asked for wins
  send().then(function done() {
    const next = waiting.next;
    waiting.next = null;
    if (next) next().then(done);
    else waiting = null;
  });
}

const KEYS = {
  n: "next", p: "previous", k: "keep", d: "drop", u: "undo", g: "go", s: "place", b: "box", Escape: "unmark",
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search],select") || event.ctrlKey || event.metaKey || event.altKey;
  if (!typing && KEYS[event.key]) {
    event.preventDefault();
    act(KEYS[event.key]);
  }
});
$("scene").addEventListener("mouseleave", takeKeyboard);
for (const button of document.querySelectorAll("button[data-action]")) button.onclick = () => act(button.dataset.action);
$("scroll").addEventListener("scroll", () => draw("rows"));
window.addEventListener("resize", () => draw("rows"));
$("search").addEventListener("input", () => draw("order"));
$("reason").addEventListener("change", () => draw("order"));
$("label").addEventListener("change", () => draw("order"));
$("threshold").addEventListener("input", (event) => {
  dragging = true;
  tryThreshold(Number(event.target.value));
});
$("threshold").addEventListener("change", () => (dragging = false));

function begin() {
  document.title = `MTCM: ${facts.name}`;
  $("name").textContent = facts.name;
  // By its other name this machine is another site, so the browser gives the scene a process of its own.
  const other = { "127.0.0.1": "localhost", localhost: "127.0.0.1" }[location.hostname] || location.hostname;
  $("scene").src = `http://${other}:${facts.scenePort}/?darkMode`;
  const news = new EventSource("news");
  news.onmessage = (event) => hear(JSON.parse(event.data));
  news.onerror = () => ($("message").textContent = "The viewer has been stopped, or cannot be reached.");
}
begin();
