// SPDX-License-Identifier: Apache-2.0
// The page: what the server said last, drawn; a question for news that is held open; one button
// that changes something. Whatever comes from outside goes into the page as text, never as markup.
"use strict";

const ACTIVE = ["running", "queued", "receiving"];
const WRONG = ["failed", "refused", "cancelled"];
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const ARMED_MS = 3000;
const AGAIN_MS = 1000;
const LOG_MS = 2000;
const STORE = "gencomp.token";

const at = (id) => document.getElementById(id);
const state = {
  token: "", turn: null, seen: null, skew: 0, chosen: "", filter: "all", search: "",
  armed: "", armedUntil: 0, asked: new Set(), detailOf: "", sheetOf: "", sheetUrl: "", ofJob: false, level: "",
};

// --- words ---------------------------------------------------------------------------------------

/** A text in one line, with all that would move, turn or hide what stands beside it spelt out. */
function plain(text) {
  return String(text ?? "").replace(CONTROL, (one) => {
    const code = one.charCodeAt(0);
    if (code === 10) return "\\n";
    return code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
  });
}

function make(kind, className, text) {
  const node = document.createElement(kind);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = plain(text);
  return node;
}

function put(node, ...children) {
  node.replaceChildren(...children.filter((one) => one !== null));
  return node;
}

function span_of(seconds) {
  if (!(seconds >= 0)) return "";
  if (seconds < 9.95) return seconds.toFixed(1) + " s";
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.floor(seconds / 60) + " min " + String(Math.floor(seconds % 60)).padStart(2, "0");
  if (seconds < 172800) return Math.floor(seconds / 3600) + " h " + String(Math.floor((seconds % 3600) / 60)).padStart(2, "0");
  return Math.floor(seconds / 86400) + " d";
}

function size_of(bytes) {
  if (!(bytes > 0)) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (bytes >= 999.5 && place < units.length - 1) { bytes /= 1000; place += 1; }
  return (bytes < 9.95 && place ? bytes.toFixed(1) : Math.round(bytes)) + " " + units[place];
}

const now_s = () => Date.now() / 1000 + state.skew;

// --- the server ----------------------------------------------------------------------------------

class Turned extends Error {
  constructor(status, told) {
    super(told.message || "The page's own server does not answer.");
    this.status = status;
    this.hint = told.hint || "";
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { Authorization: "Bearer " + state.token, ...(options.headers || {}) }, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Turned(0, { message: "gencomp web is gone.", hint: "Where gencomp serve started it, it comes back by itself with a new token: open its new address." });
  }
  if (answer.ok) return answer;
  let told = {};
  try { told = (await answer.json()).error || {}; } catch { /* no words of ours: the status says enough */ }
  throw new Turned(answer.status, told);
}

async function listen() {
  for (;;) {
    try {
      const path = state.turn === null ? "/api/state" : "/api/state?after=" + state.turn;
      const seen = await (await ask(path)).json();
      state.skew = seen.now_s - Date.now() / 1000;
      state.turn = seen.turn;
      state.seen = seen;
      say_trouble(seen.is_up ? "" : seen.why);
      draw();
      detail();
    } catch (error) {
      if (error.status === 401) { knock(); return; }
      say_trouble(error.message + " " + (error.hint || ""));
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

function say_trouble(words) {
  at("trouble").textContent = plain(words);
  at("trouble").hidden = !words;
}

async function cancel(job) {
  if (state.armed !== job || Date.now() > state.armedUntil) {
    state.armed = job;
    state.armedUntil = Date.now() + ARMED_MS;
    draw();
    setTimeout(() => { if (Date.now() >= state.armedUntil) { state.armed = ""; draw(); } }, ARMED_MS + 50);
    return;
  }
  state.armed = "";
  state.asked.add(job);
  draw();
  try {
    await ask("/api/jobs/" + encodeURIComponent(job) + "/cancel", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
  } catch (error) {
    state.asked.delete(job);
    say_trouble("Not cancelled: " + error.message + " " + error.hint);
    draw();
  }
}

// --- the door ------------------------------------------------------------------------------------

function token_in(text) {
  const found = /token=([A-Za-z0-9_-]+)/.exec(text);
  return found ? found[1] : text.trim();
}

function knock() {
  sessionStorage.removeItem(STORE);
  at("main").hidden = true;
  at("door").hidden = false;
  at("token").focus();
}

function enter(token) {
  state.token = token;
  sessionStorage.setItem(STORE, token);
  at("door").hidden = true;
  at("main").hidden = false;
  listen();
  follow_log();
}

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = token_in(at("token").value);
  at("token").value = "";
  if (token) enter(token);
});

// --- drawing -------------------------------------------------------------------------------------

function draw() {
  const seen = state.seen;
  if (!seen) return;
  draw_head(seen);
  draw_jobs(seen.jobs);
}

function chip(words, kind, title) {
  const node = make("span", "chip " + kind, words);
  if (title) node.title = plain(title);
  return node;
}

function draw_head(seen) {
  const health = seen.health, kinds = { ready: "good", busy: "run", resting: "", starting: "odd", lost: "bad" };
  const front = at("front");
  const word = seen.is_up ? health.front : "no server";
  front.textContent = plain(seen.is_up ? "server " + word : word);
  front.className = "chip " + (seen.is_up ? (word === "ready" ? "good" : "odd") : "bad");
  put(at("workers"), ...(seen.is_up ? health.workers || [] : []).map((one) =>
    chip(one.name + " " + one.state, kinds[one.state] ?? "odd", one.job ? "runs " + one.job : "")));
  const jobs = seen.is_up ? health.jobs || {} : {};
  const told = [["running", jobs.running], ["waiting", (jobs.queued || 0) + (jobs.receiving || 0)], ["failed", jobs.failed]];
  put(at("counts"), ...(seen.is_up ? told : []).flatMap(([name, many], place) => [
    document.createTextNode(place ? " · " : ""), make("b", "", many || 0), document.createTextNode(" " + name)]));
  at("disk").textContent = health.free_bytes ? size_of(health.free_bytes) + " free" : "";
  at("disk").title = "on the spool's disk";
  at("version").textContent = health.version ? plain(health.version) : "";
  const running = jobs.running || 0;
  document.title = (seen.is_up ? (running ? "▶ " + running + " · " : "") : "✕ ") + "gencomp";
}

function is_shown(job) {
  if (state.filter === "active" && !ACTIVE.includes(job.state)) return false;
  if (state.filter === "done" && job.state !== "done") return false;
  if (state.filter === "wrong" && !WRONG.includes(job.state)) return false;
  if (!state.search) return true;
  const words = [job.job, job.system, job.show, job.shot, job.account, job.client, job.frames, job.state];
  return words.join(" ").toLowerCase().includes(state.search);
}

const RANK = { running: 0, queued: 1, receiving: 2 };

function in_order(jobs) {
  return jobs.map((job, place) => ({ job, place })).sort((a, b) => {
    const first = (RANK[a.job.state] ?? 3) - (RANK[b.job.state] ?? 3);
    return first || (a.job.position || 0) - (b.job.position || 0) || a.place - b.place;
  }).map((one) => one.job);
}

function draw_jobs(jobs) {
  const shown = in_order(jobs).filter(is_shown);
  const body = at("jobs").tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.job, row]));
  put(body, ...shown.map((job) => fill_row(rows.get(job.job) || new_row(job.job), job)));
  at("none").hidden = shown.length > 0;
}

function new_row(id) {
  const row = make("tr");
  row.dataset.job = id;
  row.tabIndex = -1;
  for (const kind of ["state", "id", "", "", "", "", "num age", "wide", ""]) row.append(make("td", kind));
  row.addEventListener("click", () => choose(id));
  const button = make("button", "cancel", "cancel");
  button.type = "button";
  button.addEventListener("click", (event) => { event.stopPropagation(); cancel(id); });
  row.cells[8].append(button);
  return row;
}

function fill_row(row, job) {
  const ended = job.ended_s !== null && job.ended_s !== undefined;
  row.className = ended ? "old" : "";
  row.setAttribute("aria-selected", String(job.job === state.chosen));
  row.cells[0].className = "state " + job.state;
  const place = [job.show, job.shot].filter(Boolean).join(" / ");
  const texts = [job.state, job.job.slice(0, 8), job.system, place, job.account || job.client, job.frames, age_of(job)];
  texts.forEach((text, column) => {
    const spelt = plain(text);
    if (row.cells[column].textContent !== spelt) row.cells[column].textContent = spelt;
    if (column > 0 && column < 6) row.cells[column].title = column === 1 ? plain(job.job) : spelt;
  });
  fill_progress(row.cells[7], job);
  const button = row.cells[8].firstChild, armed = state.armed === job.job;
  button.hidden = ended;
  button.disabled = state.asked.has(job.job);
  button.className = armed ? "cancel armed" : "cancel";
  button.textContent = button.disabled ? "stopping" : armed ? "really?" : "cancel";
  return row;
}

function age_of(job) {
  return span_of(now_s() - (job.ended_s ?? job.created_s));
}

function fill_progress(cell, job) {
  const said = says(job);
  let box = cell.firstChild;
  if (!box) {
    box = make("div", "says");
    box.append(document.createElement("progress"), make("span"));
    cell.append(box);
  }
  const [bar, words] = box.children;
  bar.hidden = said.share === null;
  if (said.share !== null) bar.value = said.share;
  bar.setAttribute("aria-label", plain(said.text));
  words.className = said.kind || "";
  if (words.textContent !== plain(said.text)) words.textContent = plain(said.text);
  words.title = words.textContent;
}

function says(job) {
  const progress = job.progress;
  if (job.state === "running" && progress) {
    const share = progress.total > 0 ? Math.min(progress.step / progress.total, 1) : 0;
    const left = progress.eta_s ? ", " + span_of(progress.eta_s) + " left" : "";
    return { share, text: progress.stage + " " + progress.step + "/" + progress.total + left };
  }
  if (job.state === "running") return { share: 0, text: "begins" };
  if (job.state === "queued") return { share: null, text: job.position ? "number " + job.position + " in line" : "waits" };
  if (job.state === "receiving") return { share: null, text: "pictures arrive" };
  if (job.error && job.state !== "cancelled") return { share: null, text: job.error.message, kind: "wrong" };
  if (job.started_s && job.ended_s) return { share: null, text: "took " + span_of(job.ended_s - job.started_s) + (job.released ? ", fetched" : "") };
  return { share: null, text: "" };
}

// --- one job -------------------------------------------------------------------------------------

function choose(id) {
  state.chosen = id;
  draw();
  at("choose").hidden = Boolean(id);
  at("details").hidden = !id;
  const row = document.querySelector('tr[aria-selected="true"]');
  if (row) row.scrollIntoView({ block: "nearest" });
  detail();
  if (state.ofJob) read_log();
}

let is_asking = false;

/** Ask for the chosen job where it is new here or has changed; never twice at a time. */
async function detail() {
  const id = state.chosen, job = id && (state.seen.jobs.find((one) => one.job === id));
  if (!job || is_asking) return;
  const mark = id + job.state + JSON.stringify(job.progress) + job.released;
  if (state.detailOf === mark) return;
  is_asking = true;
  try {
    const found = await (await ask("/api/jobs/" + encodeURIComponent(id))).json();
    state.detailOf = mark;
    if (state.chosen === id) draw_detail(found.job, found.stages);
    await draw_sheet(job);
  } catch (error) {
    if (state.chosen === id) say_trouble(error.message);
  } finally {
    is_asking = false;
  }
  if (state.chosen !== id) detail();
}

function draw_detail(job, stages) {
  const whose = [job.account, job.client].filter(Boolean).join(", ");
  const place = [job.show, job.shot].filter(Boolean).join(" / ");
  const when = new Date(job.created_s * 1000).toLocaleString();
  const tries = job.tries > 1 ? ", try " + job.tries : "";
  put(at("about"),
    make("span", "title", job.system), make("span", "state " + job.state, job.state + tries), make("span", "mono", job.job),
    make("span", "line", [place, "frames " + job.frames, whose, "sent " + when].filter(Boolean).join("  ·  ")));
  const error = job.state === "cancelled" ? null : job.error;
  at("error").hidden = !error;
  if (error) put(at("error"), document.createTextNode(plain(error.message)), make("span", "hint", error.hint || ""), make("code", "dim", error.code + "  ·  gencomp report " + job.job));
  put(at("warnings"), ...(job.warnings || []).map((text) => make("li", "", text)));
  draw_stages(stages);
  const knobs = Object.entries(job.knobs || {});
  put(at("knobs"), ...knobs.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", typeof value === "string" ? value : JSON.stringify(value))]));
  if (!knobs.length) put(at("knobs"), make("dt", "", "all by default"));
}

const ROW_PX = 24, LANE_PX = 13;

function draw_stages(stages) {
  if (!stages.length) { put(at("stages"), make("span", "dim", "None yet.")); return; }
  const row_of = new Map(stages.map((one, row) => [one.key, row]));
  const lanes = [];
  stages.forEach((one, row) => {
    const above = (one.needs || []).map((key) => row_of.get(key)).filter((place) => place !== undefined && place < row);
    lanes.push(above.length ? Math.min(Math.max(...above.map((place) => lanes[place])) + 1, 6) : 0);
  });
  const left = (Math.max(...lanes) + 1) * LANE_PX + 12;
  const longest = Math.max(...stages.map((one) => one.seconds || 0), 0.001);
  const lines = stages.map((one) => {
    const line = make("div", "stage " + one.state);
    const name = make("span", "name", one.name);
    if (one.reused) name.append(make("span", "tag", "reused"));
    else if (one.state !== "done") name.append(make("span", "tag", one.state));
    name.title = (one.reads || []).length ? plain("reads " + one.reads.join(", ")) : "";
    const bar = make("span", "bar"), fill = make("i");
    fill.style.width = 100 * (one.seconds || 0) / longest + "%";
    bar.append(fill);
    line.append(name, bar, make("span", "num", span_of(one.seconds || 0)), make("span", "num dim", size_of(one.bytes)));
    line.style.paddingLeft = left + "px";
    return line;
  });
  const drawing = svg("svg", { width: left, height: stages.length * ROW_PX });
  const x = (row) => 8 + lanes[row] * LANE_PX, y = (row) => row * ROW_PX + ROW_PX / 2;
  stages.forEach((one, row) => (one.needs || []).forEach((key) => {
    const from = row_of.get(key);
    if (from === undefined) return;
    drawing.append(svg("path", { d: `M${x(from)} ${y(from)}V${y(row) - 7}Q${x(from)} ${y(row)} ${Math.min(x(from) + 7, x(row))} ${y(row)}H${x(row)}` }));
  }));
  stages.forEach((one, row) => drawing.append(svg("circle", { cx: x(row), cy: y(row), r: 5, class: one.reused ? "reused" : one.state })));
  put(at("stages"), drawing, ...lines);
}

function svg(kind, values) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(values)) node.setAttribute(name, value);
  return node;
}

async function draw_sheet(job) {
  const mark = job.job + job.state;
  if (state.sheetOf === mark) return;
  if (state.sheetUrl) URL.revokeObjectURL(state.sheetUrl);
  state.sheetOf = mark;
  state.sheetUrl = "";
  if (job.state !== "done") { put(at("sheet"), make("span", "dim", ACTIVE.includes(job.state) ? "Drawn when the job is done." : "None, since the job was not done.")); return; }
  try {
    state.sheetUrl = URL.createObjectURL(await (await ask("/api/jobs/" + encodeURIComponent(job.job) + "/sheet")).blob());
    const picture = make("img");
    picture.alt = "contact sheet of " + plain(job.job);
    picture.src = state.sheetUrl;
    const frame = make("button");
    frame.type = "button";
    frame.title = "larger";
    frame.append(picture);
    frame.addEventListener("click", () => frame.classList.toggle("large"));
    put(at("sheet"), frame);
  } catch (error) {
    put(at("sheet"), make("span", "dim", error.message));
  }
}

// --- the log -------------------------------------------------------------------------------------

async function read_log() {
  const asked = new URLSearchParams({ lines: "300", level: state.level, job: state.ofJob ? state.chosen : "" });
  let told;
  try { told = await (await ask("/api/log?" + asked)).json(); } catch { return; /* the question for news says what is wrong */ }
  at("logfile").textContent = told.file ? plain(told.file) : state.seen?.is_up ? "the server writes no log file" : "";
  const list = at("lines"), follows = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  const mark = JSON.stringify(told.lines.at(-1) ?? "") + told.lines.length;
  if (list.dataset.mark === mark) return;
  list.dataset.mark = mark;
  put(list, ...told.lines.map((one) => {
    const line = make("li", ["debug", "info", "warning", "error"].includes(one.level) ? one.level : "error");
    const when = String(one.time || "");
    const what = make("span", "what", one.message + (one.error ? "  " + one.error.trim().split("\n").at(-1) : ""));
    if (one.error) what.title = one.error;
    line.append(make("span", "when", when ? new Date(when).toLocaleTimeString("en-GB") : ""), make("span", "level", one.level), make("span", "who", one.job || "server"), what);
    line.firstChild.title = plain(when);
    return line;
  }));
  if (follows) list.scrollTop = list.scrollHeight;
}

async function follow_log() {
  for (;;) {
    if (!document.hidden && at("door").hidden) await read_log();
    if (!at("door").hidden) return;
    await new Promise((done) => setTimeout(done, LOG_MS));
  }
}

// --- hands ---------------------------------------------------------------------------------------

at("filters").addEventListener("click", (event) => {
  const filter = event.target.dataset.filter;
  if (!filter) return;
  state.filter = filter;
  for (const one of at("filters").children) one.setAttribute("aria-pressed", String(one.dataset.filter === filter));
  draw();
});
at("search").addEventListener("input", () => { state.search = at("search").value.trim().toLowerCase(); draw(); });
at("ofjob").addEventListener("click", () => {
  state.ofJob = !state.ofJob;
  at("ofjob").setAttribute("aria-pressed", String(state.ofJob));
  read_log();
});
at("level").addEventListener("change", () => { state.level = at("level").value; read_log(); });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
  const rows = [...at("jobs").tBodies[0].rows].map((row) => row.dataset.job);
  const place = rows.indexOf(state.chosen);
  const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
  if (step && rows.length && !at("lines").matches(":focus")) {
    choose(rows[Math.min(Math.max(place + step, 0), rows.length - 1)]);
  } else if (event.key === "c" && place >= 0) {
    const job = state.seen.jobs.find((one) => one.job === state.chosen);
    if (job && ACTIVE.includes(job.state)) cancel(job.job);
  } else if (event.key === "Escape") {
    document.querySelector("#sheet .large")?.classList.remove("large");
  } else if (event.key === "/") {
    at("search").focus();
  } else return;
  event.preventDefault();
});
setInterval(() => { if (state.seen && !document.hidden) draw(); }, 1000);

const brought = location.hash ? token_in(location.hash) : "";
if (brought) history.replaceState(null, "", location.pathname);
const token = brought || sessionStorage.getItem(STORE) || "";
if (token) enter(token); else knock();
