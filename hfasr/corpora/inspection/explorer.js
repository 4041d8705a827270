"use strict";
// Rows are columns of numbers and strings; only those in sight have elements, which are filled anew as the page scrolls.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const rowCount = data.id.length;
const why = new Map(data.why);
const duration = Float64Array.from(data.duration, (seconds) => seconds ?? NaN);
const rate = Float64Array.from(duration, (seconds, row) => (seconds > 0 ? data.characters[row] / seconds : NaN));
const columns = { duration, rate };
const reasonTitles = new Map(data.reasons.map(([name, title]) => [name, title]));
const serious = new Set(["bad", "empty", "broken", "leak", "fast"]);
const marked = new Map(data.alphabet.filter((each) => each[5]).map((each) => [each[0], each]));
const number = (value) => value.toLocaleString("en");
const NOT_SEEN = /^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]$/u;

const empty = () => ({ query: "", split: "", source: "", speaker: "", reasons: new Set(), symbol: "", duration: null, rate: null });
let filter = empty();
let sorting = "score";
let view = new Int32Array(0);
let selected = -1; // a row, not its place in the view
let player = null;
let playing = -1;

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const nameOf = (column, row) => data[column].values[data[column].codes[row]];
const short = (name) => (name.length <= 24 ? name : name.slice(0, 14) + "…");
const shown = (symbol) => (NOT_SEEN.test(symbol) || /^\s$/.test(symbol) ? "U+" + symbol.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") : /^\p{M}$/u.test(symbol) ? "◌" + symbol : symbol);

// Which rows, in which order.
const orders = {
  score: ["Most suspicious first", () => data.score, -1],
  corpus: ["Order of the corpus", () => null, 1],
  "duration-": ["Longest first", () => duration, -1],
  duration: ["Shortest first", () => duration, 1],
  "rate-": ["Fastest first", () => rate, -1],
  rate: ["Slowest first", () => rate, 1],
  "length-": ["Longest text first", () => data.characters, -1],
  length: ["Shortest text first", () => data.characters, 1],
  text: ["By text", () => data.text, 1],
  speaker: ["By speaker", () => data.speaker.codes.map((code) => data.speaker.values[code] ?? "\uffff"), 1],
};
const sorted = new Map();

function order() {
  if (!sorted.has(sorting)) {
    const [, column, sign] = orders[sorting];
    const keys = column();
    const rows = Int32Array.from({ length: rowCount }, (_, row) => row);
    if (keys) {
      // what is not known comes last, whichever way
      const unknown = (key) => typeof key === "number" && Number.isNaN(key);
      rows.sort((a, b) => unknown(keys[a]) - unknown(keys[b]) || (keys[a] < keys[b] ? -sign : keys[a] > keys[b] ? sign : a - b));
    }
    sorted.set(sorting, rows);
  }
  return sorted.get(sorting);
}

let folded = null;
const fold = () => (folded ??= data.text.map((text, row) => (text + "\n" + data.id[row]).normalize("NFC").toLowerCase()));

function tests() {
  const found = [];
  for (const column of ["split", "source", "speaker"]) {
    if (filter[column] === "") continue;
    const code = Number(filter[column]), codes = data[column].codes;
    found.push((row) => codes[row] === code);
  }
  if (filter.reasons.size) {
    const bits = [...filter.reasons].reduce((sum, name) => sum | data.bits[name], 0);
    found.push((row) => (data.marks[row] & bits) !== 0);
  }
  for (const [name, values] of Object.entries(columns)) {
    if (!filter[name]) continue;
    const [low, high] = filter[name];
    found.push((row) => values[row] >= low && values[row] < high);
  }
  if (filter.symbol) found.push((row) => data.text[row].includes(filter.symbol));
  const query = filter.query.normalize("NFC").toLowerCase();
  if (query) found.push((row) => fold()[row].includes(query));
  return found;
}

function apply({ keepPlace = false } = {}) {
  const kept = new Int32Array(rowCount), conditions = tests();
  let count = 0;
  for (const row of order()) if (conditions.every((holds) => holds(row))) kept[count++] = row;
  view = kept.subarray(0, count);
  document.body.classList.toggle("filtered", conditions.length > 0);
  $("count").textContent = conditions.length ? `${number(count)} of ${number(rowCount)} rows` : `${number(rowCount)} rows`;
  showFilters();
  for (const chart of charts) chart.update();
  list.style.height = count ? count * rowHeight + "px" : "auto";
  list.setAttribute("aria-rowcount", count);
  if (!keepPlace && scrollY > listTop()) scrollTo(0, listTop());
  for (const element of pool) element.dataset.row = "";
  draw();
}

const list = $("list"), tools = document.querySelector(".tools");
const pool = [];
let rowHeight = 0, tucked = 0, waiting = false;

function measure() {
  // on a narrow screen only the search stays in sight
  tucked = wide.matches ? 0 : -($("query").offsetTop - 6);
  tools.style.setProperty("--tuck", tucked + "px");
  const probe = list.appendChild(make("div", "", { class: "row", style: "visibility:hidden" }));
  rowHeight = probe.offsetHeight;
  probe.remove();
}

function draw() {
  waiting = false;
  const box = list.getBoundingClientRect();
  const first = Math.max(0, Math.floor(-box.top / rowHeight) - 4);
  const last = Math.min(view.length, Math.ceil((innerHeight - box.top) / rowHeight) + 4);
  const needed = Math.max(0, last - first);
  while (pool.length < needed) pool.push(list.appendChild(newRow()));
  for (const element of pool) element.inUse = false;
  // the row at a place keeps its element while it stays in sight
  for (let place = first; place < last; place++) {
    const element = pool[place % pool.length];
    element.inUse = true;
    if (element.dataset.row !== String(view[place]) || element.place !== place) fill(element, view[place], place);
  }
  for (const element of pool) element.hidden = !element.inUse;
  list.querySelector(".empty")?.remove();
  if (!view.length) list.append(make("div", "No row matches. Take a filter away to see more.", { class: "empty" }));
  list.setAttribute("aria-activedescendant", selected >= 0 ? "row-" + selected : "");
}

// Where the page is scrolled to when the list begins right below the search.
const listTop = () => list.getBoundingClientRect().top + scrollY - tools.offsetHeight - tucked;

function later() {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

function newRow() {
  const element = make("div", undefined, { class: "row", role: "row" });
  const button = element.appendChild(make("button", "▶", { class: "play", type: "button", tabindex: "-1" }));
  const text = element.appendChild(make("div", "", { class: "text", dir: "auto", role: "gridcell" }));
  const reasons = element.appendChild(make("div", "", { class: "why", role: "gridcell" }));
  const seconds = element.appendChild(make("div", "", { class: "number seconds", role: "gridcell", "data-unit": " s" }));
  const speed = element.appendChild(make("div", "", { class: "number speed", role: "gridcell", "data-unit": "/s" }));
  const from = element.appendChild(make("div", undefined, { class: "from", role: "gridcell" }));
  from.append(make("div"), make("div"));
  element.parts = { button, text, reasons, seconds, speed, from };
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    select(Number(element.dataset.row), false);
    toggle();
  });
  element.addEventListener("click", () => select(Number(element.dataset.row)));
  return element;
}

function fill(element, row, place) {
  const { button, text, reasons, seconds, speed, from } = element.parts;
  element.dataset.row = row;
  element.place = place;
  element.id = "row-" + row;
  element.style.transform = `translateY(${place * rowHeight}px)`;
  element.setAttribute("aria-rowindex", place + 1);
  element.setAttribute("aria-selected", row === selected);
  text.replaceChildren(...pieces(data.text[row].slice(0, 400)));
  reasons.replaceChildren();
  if (data.marks[row]) {
    for (const [name, title] of reasonTitles) if (data.marks[row] & data.bits[name]) reasons.append(make("span", title, { class: serious.has(name) ? "bad" : "" }));
    reasons.title = why.get(row).join("\n");
  } else reasons.removeAttribute("title");
  seconds.textContent = Number.isNaN(duration[row]) ? "?" : duration[row].toFixed(1);
  speed.textContent = Number.isNaN(rate[row]) ? "–" : rate[row].toFixed(1);
  from.firstChild.textContent = nameOf("split", row);
  from.lastChild.textContent = nameOf("speaker", row) ?? nameOf("source", row) ?? "";
  button.disabled = !address(row);
  button.title = button.disabled ? silence(row) : "";
  showButton(element);
}

function showButton(element) {
  const on = Number(element.dataset.row) === playing;
  element.parts.button.textContent = on ? "❚❚" : "▶";
  element.parts.button.setAttribute("aria-label", (on ? "Pause " : "Play ") + data.id[Number(element.dataset.row)]);
}

// A text with what was searched for and its odd symbols marked, as nodes.
function pieces(text) {
  const query = filter.query.toLowerCase(), lower = text.toLowerCase();
  const at = query && lower.length === text.length ? lower.indexOf(query) : -1;
  if (at >= 0) {
    const hit = make("mark", text.slice(at, at + query.length), { class: "hit" });
    return [...symbols(text.slice(0, at)), hit, ...symbols(text.slice(at + query.length))];
  }
  return text ? symbols(text) : [make("span", "(no text)", { class: "soft" })];
}

function symbols(text) {
  const nodes = [];
  let plain = "";
  for (const symbol of text) {
    const odd = marked.has(symbol) || symbol === filter.symbol, hidden = NOT_SEEN.test(symbol) && !/\s/.test(symbol);
    if (!odd && !hidden) {
      plain += symbol;
      continue;
    }
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
    const about = marked.get(symbol);
    nodes.push(make("mark", hidden ? shown(symbol) : symbol, { class: hidden ? "code" : symbol === filter.symbol ? "hit" : "", title: about ? `${about[1]}: ${about[5]}` : "" }));
  }
  if (plain) nodes.push(document.createTextNode(plain));
  return nodes;
}

function address(row) {
  if (row in data.clips) return "data:audio/mpeg;base64," + data.clips[row];
  // a function, since a string would have its dollar signs read
  return nameOf("link", row)?.replace("*", () => encodeURIComponent(data.id[row]));
}

const silence = (row) => (row in data.audioProblems ? "No player: " + data.audioProblems[row] : "No player: the recording lies inside an archive or table, and only the most suspicious of those are in this page.");

function select(row, scroll = true) {
  const before = selected;
  selected = row;
  const now = $("now");
  now.hidden = row < 0;
  for (const element of pool) element.setAttribute("aria-selected", Number(element.dataset.row) === row && element.dataset.row !== "");
  list.setAttribute("aria-activedescendant", row >= 0 ? "row-" + row : "");
  if (row < 0) {
    document.body.style.setProperty("--below", "0px");
    return player?.pause();
  }
  if (before !== row) {
    now.querySelector(".text").replaceChildren(...pieces(data.text[row]));
    now.querySelector("ul").replaceChildren(...(why.get(row) ?? []).map((reason) => make("li", reason)));
    const facts = now.querySelector(".facts");
    facts.replaceChildren(make("span", data.id[row]), make("span", Number.isNaN(duration[row]) ? "duration unknown" : duration[row].toFixed(2) + " s"));
    if (!Number.isNaN(rate[row])) facts.append(make("span", rate[row].toFixed(1) + " characters per second", { class: "wide" }));
    for (const column of ["split", "source", "speaker"]) {
      if (nameOf(column, row) === undefined) continue;
      const button = facts.appendChild(make("button", `${column} ${short(nameOf(column, row))}`, { type: "button", title: `Show only this ${column}: ${nameOf(column, row)}` }));
      button.addEventListener("click", () => change({ [column]: String(data[column].codes[row]) }));
    }
    now.querySelector(".problem").textContent = address(row) ? "" : silence(row);
    player?.pause();
    if (player) player.hidden = true;
  }
  // what lies under the bar can be scrolled to, by the browser too
  document.body.style.setProperty("--below", now.offsetHeight + "px");
  document.documentElement.style.scrollPadding = `${tools.offsetHeight + tucked}px 0 ${now.offsetHeight}px`;
  if (scroll) reveal(view.indexOf(row));
}

function reveal(place) {
  const top = list.getBoundingClientRect().top + place * rowHeight, above = tools.offsetHeight + tucked, below = innerHeight - $("now").offsetHeight;
  if (top < above) scrollBy(0, top - above);
  else if (top + rowHeight > below) scrollBy(0, top + rowHeight - below);
}

function toggle() {
  const row = selected, source = row >= 0 && address(row);
  if (!source) return;
  if (playing === row) return player.pause();
  if (!player) {
    player = $("audio").appendChild(make("audio", undefined, { controls: "" }));
    for (const event of ["play", "pause", "ended", "error"]) player.addEventListener(event, followPlayer);
  }
  player.hidden = false;
  if (player.row !== row) {
    player.row = row;
    player.src = source;
  }
  player.play().catch(() => {});
}

function followPlayer(event) {
  playing = event.type === "play" ? player.row : -1;
  if (event.type === "error") $("now").querySelector(".problem").textContent = "The recording cannot be played: its file is not there, or this browser does not know its format.";
  for (const element of pool) if (element.dataset.row !== "") showButton(element);
  const end = Number(/#t=[\d.]+,([\d.]+)$/.exec(player.src)?.[1] ?? player.duration);
  // a segment of a longer recording pauses at its end
  const through = event.type === "ended" || (event.type === "pause" && player.currentTime >= end - 0.05 && end < player.duration);
  if (through && player.row === selected && $("on").checked && step(1)) toggle();
}

function step(by) {
  const place = view.indexOf(selected), next = place < 0 ? 0 : place + by;
  if (next < 0 || next >= view.length) return false;
  select(view[next]);
  return true;
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA|AUDIO)$/.test(event.target.tagName);
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else select(-1);
  } else if (typing) return;
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const wasPlaying = playing >= 0;
    if (step(event.key === "ArrowDown" ? 1 : -1) && wasPlaying) toggle();
  } else if (event.key === " " && event.target.tagName !== "BUTTON" && event.target.tagName !== "SUMMARY") {
    event.preventDefault();
    if (selected < 0) step(1);
    toggle();
  } else if (event.key === "/") {
    event.preventDefault();
    $("query").focus();
  }
});

function change(changes) {
  filter = { ...filter, ...changes };
  for (const column of ["split", "source", "speaker"]) $(column).value = filter[column];
  if ($("query").value !== filter.query) $("query").value = filter.query;
  for (const button of document.querySelectorAll("[data-reason]")) button.setAttribute("aria-pressed", filter.reasons.has(button.dataset.reason));
  for (const button of document.querySelectorAll("[data-symbol]")) button.setAttribute("aria-pressed", filter.symbol === button.dataset.symbol);
  for (const button of document.querySelectorAll("[data-speaker]")) button.setAttribute("aria-pressed", filter.speaker === button.dataset.speaker);
  apply();
}

function showFilters() {
  const chips = [];
  const chip = (title, cleared) => {
    const button = make("button", title + " ✕", { type: "button", "aria-label": "Remove filter " + title });
    button.addEventListener("click", () => change(cleared));
    chips.push(button);
  };
  if (filter.query) chip(`“${short(filter.query)}”`, { query: "" });
  for (const column of ["split", "source", "speaker"]) if (filter[column] !== "") chip(`${column} ${short(data[column].values[filter[column]])}`, { [column]: "" });
  for (const name of filter.reasons) chip(reasonTitles.get(name), { reasons: new Set([...filter.reasons].filter((other) => other !== name)) });
  if (filter.symbol) chip("with " + shown(filter.symbol), { symbol: "" });
  for (const [name, unit] of [["duration", "s"], ["rate", "characters/s"]]) {
    if (!filter[name]) continue;
    const [low, high] = filter[name];
    chip(high === Infinity ? `${low} ${unit} and more` : `${low} to ${high} ${unit}`, { [name]: null });
  }
  if (chips.length > 1) chip("all", empty());
  $("filters").replaceChildren(...chips.flatMap((button) => [button, " "]));
}

// A histogram of the whole corpus; over it, in its own scale, that of the rows in the list. Bars are chosen by a click or a drag.
function newChart(section) {
  const name = section.dataset.chart, { edges, counts, usual } = data.charts[name], bars = counts.length, width = edges[1] - edges[0];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const add = (tag, attributes) => {
    const element = svg.appendChild(document.createElementNS(svg.namespaceURI, tag));
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  svg.setAttribute("viewBox", `0 0 ${bars} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "chart");
  svg.setAttribute("role", "img");
  const most = Math.max(...counts);
  svg.setAttribute("aria-label", `Histogram of ${name}: most rows at ${edges[counts.indexOf(most)]} to ${edges[counts.indexOf(most) + 1]}; choose a range below`);
  const band = add("rect", { class: "band", y: 0, height: 100, width: 0 });
  // a bar of few rows is kept in sight
  const height = (count, highest) => (count ? Math.max((100 * count) / highest, 2) : 0);
  const draws = (kind) => counts.map((_, bar) => add("rect", { class: kind, x: bar + 0.06, width: 0.88 }));
  const resize = (rects, values) => {
    const highest = Math.max(...values, 1);
    rects.forEach((rect, bar) => {
      rect.setAttribute("height", height(values[bar], highest));
      rect.setAttribute("y", 100 - height(values[bar], highest));
    });
  };
  resize(draws("all"), counts);
  const over = draws("view");
  for (const place of usual ?? []) if (place < edges[bars]) add("line", { class: "usual", x1: place / width, x2: place / width, y1: 0, y2: 100 });
  for (let bar = 0; bar < bars; bar++) {
    const title = add("rect", { x: bar, y: 0, width: 1, height: 100, fill: "transparent" }).appendChild(document.createElementNS(svg.namespaceURI, "title"));
    title.textContent = `${edges[bar]} ${bar === bars - 1 ? "and more" : "to " + edges[bar + 1]}: ${number(counts[bar])} rows`;
  }
  section.append(svg);
  const ticks = section.appendChild(make("div", undefined, { class: "ticks", "aria-hidden": "true" }));
  for (const part of [0, 0.25, 0.5, 0.75, 1]) ticks.append(make("span", String(+(edges[bars] * part).toPrecision(3)) + (part === 1 ? "+" : "")));
  const range = section.appendChild(make("div", "from ", { class: "range" }));
  const inputs = ["least", "most"].map((end) => make("input", undefined, { type: "number", min: 0, step: "any", "aria-label": `${name}, ${end}` }));
  range.append(inputs[0], " to ", inputs[1]);
  const typed = () => {
    const [low, high] = inputs.map((input) => (input.value === "" ? NaN : Number(input.value)));
    change({ [name]: Number.isNaN(low) && Number.isNaN(high) ? null : [low || 0, Number.isNaN(high) ? Infinity : high] });
  };
  for (const input of inputs) input.addEventListener("change", typed);
  let start = -1;
  const barAt = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(bars - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * bars)));
  };
  const choose = (event) => {
    const [low, high] = [start, barAt(event)].sort((a, b) => a - b);
    const chosen = [edges[low], high === bars - 1 ? Infinity : edges[high + 1]];
    // the same bar again takes the choice back
    const again = event.type === "pointerdown" && filter[name] && filter[name][0] === chosen[0] && filter[name][1] === chosen[1];
    if (again) start = -1;
    change({ [name]: again ? null : chosen });
  };
  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    start = barAt(event);
    choose(event);
  });
  svg.addEventListener("pointermove", (event) => start >= 0 && event.buttons && choose(event));
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (start = -1));

  function update() {
    const [low, high] = filter[name] ?? [0, 0];
    band.setAttribute("x", Math.min(low / width, bars));
    band.setAttribute("width", Math.max(0, Math.min(high / width, bars) - Math.min(low / width, bars)));
    inputs[0].value = filter[name] ? low : "";
    inputs[1].value = filter[name] && high !== Infinity ? high : "";
    const values = new Array(bars).fill(0), column = columns[name];
    for (const row of view) if (column[row] >= 0) values[Math.min(bars - 1, Math.floor(column[row] / width))]++;
    resize(over, values);
  }
  return { update };
}

function newSelect(id, all, names) {
  const element = $(id);
  if (id !== "sort") element.append(make("option", all, { value: "" }));
  for (const [value, title] of names) element.append(make("option", title, { value }));
  if (names.length < 2) element.hidden = true;
}

function build() {
  for (const [column, all] of [["split", "All splits"], ["source", "All sources"], ["speaker", "All speakers"]]) {
    const { values, codes } = data[column], counts = new Array(values.length).fill(0);
    for (const code of codes) if (code >= 0) counts[code]++;
    // the others are found through a row of theirs
    newSelect(column, all, values.slice(0, 2000).map((name, code) => [code, `${short(name)} (${number(counts[code])})`]));
    $(column).addEventListener("change", () => change({ [column]: $(column).value }));
  }
  newSelect("sort", "", Object.entries(orders).map(([name, [title]]) => [name, title]));
  const sortBy = (name) => {
    sorting = $("sort").value = name;
    showSorting();
    apply();
  };
  const showSorting = () => {
    for (const button of $("columns").querySelectorAll("button")) button.textContent = button.caption + (sorting === button.names[0] ? " ↓" : sorting === button.names[1] ? " ↑" : "");
  };
  $("sort").addEventListener("change", () => sortBy($("sort").value));
  for (const [title, names, kind] of [["", [], ""], ["Text", ["text", "length-"], ""], ["Suspicious because", ["score", "corpus"], ""], ["seconds", ["duration-", "duration"], "number"], ["chars/s", ["rate-", "rate"], "number"], ["Split, speaker", ["speaker", "corpus"], ""]]) {
    if (!title) {
      $("columns").append(make("span"));
      continue;
    }
    const button = $("columns").appendChild(make("button", title, { type: "button", class: kind, title: names.map((name) => orders[name][0]).join(", or ").toLowerCase() }));
    Object.assign(button, { names, caption: title });
    button.addEventListener("click", () => sortBy(sorting === names[0] ? names[1] : names[0]));
  }
  for (const [name, title, advice, count] of data.reasons) {
    if (!count) continue;
    const button = $("reasons").appendChild(make("button", undefined, { type: "button", class: "reason", title: advice, "aria-pressed": "false", "data-reason": name }));
    button.append(make("span", title), make("span", number(count)));
    button.addEventListener("click", () => {
      const reasons = new Set(filter.reasons);
      if (!reasons.delete(name)) reasons.add(name);
      change({ reasons });
    });
  }
  if (!$("reasons").children.length) $("reasons").append(make("span", "Nothing.", { class: "soft" }));
  $("symbol-count").textContent = data.alphabet.length < data.symbols ? `${number(data.alphabet.length)} of ${number(data.symbols)}` : number(data.symbols);
  for (const [symbol, name, , count, rows, mark] of data.alphabet) {
    const line = make("tr"), cell = make("td");
    const button = cell.appendChild(make("button", shown(symbol), { type: "button", class: mark ? "symbol marked" : "symbol", "aria-pressed": "false", "data-symbol": symbol, "aria-label": `Rows with ${name}`, title: `in ${number(rows)} rows` }));
    button.addEventListener("click", () => change({ symbol: filter.symbol === symbol ? "" : symbol }));
    line.append(cell, make("td", mark ? `${name}: ${mark}` : name, { class: "name" }), make("td", number(count)));
    $("symbols").append(line);
  }
  if (data.speakers.length) {
    const section = $("speakers"), codes = new Map(data.speaker.values.map((name, code) => [name, code]));
    section.hidden = false;
    section.querySelector("small").textContent = data.speakers.length < data.speakerCount ? `${data.speakers.length} of ${number(data.speakerCount)}` : "";
    for (const [name, utterances, hours] of data.speakers) {
      const code = String(codes.get(name) ?? "");
      const button = section.querySelector(".box").appendChild(make("button", undefined, { type: "button", class: "who", "aria-pressed": "false", "data-speaker": code, title: name }));
      const bar = button.appendChild(make("i"));
      bar.style.width = (100 * hours) / (data.speakers[0][2] || 1) + "%";
      button.append(make("span", short(name)), make("span", `${number(utterances)} · ${hours >= 1 ? hours.toFixed(1) + " h" : (60 * hours).toFixed(1) + " min"}`));
      button.disabled = code === "";
      button.addEventListener("click", () => change({ speaker: filter.speaker === code ? "" : code }));
    }
  }
  $("close").addEventListener("click", () => select(-1));
  $("query").addEventListener("focus", () => wide.matches || scrollTo(0, Math.max(scrollY, listTop())));
  $("query").addEventListener("input", () => {
    filter.query = $("query").value;
    apply();
  });
  $("sort").value = sorting;
  showSorting();
}

const wide = matchMedia("(min-width: 62.01rem)");
$("side").open = wide.matches;
wide.addEventListener("change", () => ($("side").open = wide.matches));
const charts = [...document.querySelectorAll("[data-chart]")].map(newChart);
build();
measure();
apply({ keepPlace: true });
addEventListener("scroll", later, { passive: true });
addEventListener("resize", () => {
  measure();
  apply({ keepPlace: true });
});
document.documentElement.dataset.state = "ready";
// the first search should not wait for this
(window.requestIdleCallback ?? setTimeout)(fold);
