"use strict";
// The page works on one JSON value: images are numbers, places in data.names. Texts from file names reach the page
// through textContent and setAttribute only, so that no name can become markup.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const n = data.names.length;
const $ = (id) => document.getElementById(id);
const percent = (x) => `${Math.round(100 * x)}\u00a0%`;
const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// ---- thumbnails: sprites are turned into pictures when the first photograph of theirs comes into view --------------
const place = new Int32Array(n).fill(-1);
data.sprites.images.forEach((image, k) => { place[image] = k; });
const across = data.sprites.across, perSprite = across * across;
const sprites = new Map();

function sprite(number) {
  if (!sprites.has(number)) {
    const text = atob($(`sprite-${number}`).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const url = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
    const image = new Image();
    const entry = { url, image, ready: false };
    image.decoding = "async";
    image.onload = () => { entry.ready = true; requestDraw(); };
    image.src = url;
    sprites.set(number, entry);
  }
  return sprites.get(number);
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); show(entry.target); }
}, { rootMargin: "300px" });

function show(element) {
  const k = place[+element.dataset.image];
  const count = Math.min(perSprite, data.sprites.images.length - Math.floor(k / perSprite) * perSprite);
  const rows = Math.ceil(count / across), column = k % across, row = Math.floor((k % perSprite) / across);
  element.style.backgroundImage = `url(${sprite(Math.floor(k / perSprite)).url})`;
  element.style.backgroundSize = `${100 * across}% ${100 * rows}%`;
  element.style.backgroundPosition = `${across > 1 ? 100 * column / (across - 1) : 0}% ${rows > 1 ? 100 * row / (rows - 1) : 0}%`;
}

const outliers = new Set(data.outlier);
function describe(image) {
  const parts = [data.names[image], `cluster ${data.cluster[image]}`, `confidence ${percent(data.confidence[image])}`];
  if (data.label[image] >= 0) parts.push(`model ${data.models[data.label[image]]}`);
  if (outliers.has(image)) parts.push("outlier");
  return parts.join(", ");
}

function dress(element, image) {
  element.dataset.image = image;
  element.title = describe(image);
  if (place[image] < 0) {
    element.classList.add("empty");
    element.textContent = data.names[image].split("/").pop().slice(0, 40);
  } else seen.observe(element);
  return element;
}
function photo(image, extra = "") {
  const button = make("button", { type: "button", className: `photo ${extra}`, "aria-label": describe(image) });
  if (data.confidence[image] < 0.5) button.classList.add("doubtful");
  return dress(button, image);
}
const thumb = (image) => dress(make("span", { className: "thumb", role: "img", "aria-label": describe(image) }), image);

for (const element of document.querySelectorAll("button.photo[data-image]")) {
  const image = +element.dataset.image;
  element.setAttribute("aria-label", describe(image));
  dress(element, image);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.photo");
  if (button) openPhoto(+button.dataset.image);
});

// ---- cuts: clusters of another granularity, from what stage 04 stored ----------------------------------------------
const rankOf = new Int32Array(n);
data.order.forEach((image, rank) => { rankOf[image] = rank; });
const result = { granularity: null, clusters: data.cluster, isResult: true };
if (data.current === null) {
  const count = data.clusters.length;
  let at = data.cuts.findIndex((cut) => cut.n_clusters > count);
  if (at < 0) at = data.cuts.length;
  data.cuts.splice(at, 0, Object.assign(result, { n_clusters: count, ari: null, medoids: Object.fromEntries(data.clusters.map((c) => [c.id, c.medoid])) }));
  data.current = at;
} else data.cuts[data.current].isResult = true;
let cutIndex = data.current, groups = new Map();

function groupsOf(cut) {
  const found = new Map();
  for (const image of data.order) {
    const cluster = cut.clusters[image];
    if (!found.has(cluster)) found.set(cluster, []);
    found.get(cluster).push(image);
  }
  const own = new Map(data.clusters.map((row) => [row.id, row]));
  const list = new Map();
  for (const [id, members] of found) {
    const medoid = cut.isResult ? own.get(id).medoid : +cut.medoids[id];
    const rest = members.filter((image) => image !== medoid);
    const confidence = cut.isResult ? own.get(id).confidence : members.reduce((s, i) => s + data.confidence[i], 0) / members.length;
    list.set(id, { id, medoid, images: [medoid, ...rest], size: members.length, confidence, doubt: (1 - confidence) * members.length });
  }
  return list;
}

const cutInput = $("cut");
cutInput.max = data.cuts.length - 1;
cutInput.value = cutIndex;
function setCut(index) {
  cutIndex = index;
  const cut = data.cuts[index];
  groups = groupsOf(cut);
  const parts = [plural(groups.size, "cluster")];
  if (cut.granularity !== null) parts.push(`granularity ${cut.granularity}`);
  if (cut.ari !== null) parts.push(`ARI ${cut.ari.toFixed(3)}`);
  $("cut-text").textContent = parts.join(", ") + (cut.isResult ? " (the result)" : "");
  cutInput.setAttribute("aria-valuetext", $("cut-text").textContent);
  $("cut-reset").disabled = Boolean(cut.isResult);
  unitCluster = clustersOfUnits(cut);
  colourClusters();
  if (chosen.cluster !== null && !groups.has(chosen.cluster)) chosen.cluster = null;
  fillSide();
  fillCards();
  requestDraw();
}
cutInput.addEventListener("input", () => setCut(+cutInput.value));
$("cut-reset").addEventListener("click", () => { cutInput.value = data.current; setCut(data.current); });

// ---- the map -------------------------------------------------------------------------------------------------------
const map = data.map, nUnits = map.centre.length;
const canvas = $("canvas"), context = canvas.getContext("2d");
const chosen = { unit: null, cluster: null };
// the map lies on its longer side; on a narrow screen it stands
const standing = window.innerWidth < 640 && map.lying;
if (standing) for (const list of [map.centre, map.corner, ...map.edge]) for (const point of list) point.reverse();
const view = { scale: 1, x: 0, y: 0, fit: 1 };
let unitCluster = [], clusterColour = new Map(), imagesOfUnit = Array.from({ length: nUnits }, () => []), unitConfidence = [];
for (const image of data.order) imagesOfUnit[data.unit[image]].push(image);
unitConfidence = imagesOfUnit.map((list) => list.length ? list.reduce((s, i) => s + data.confidence[i], 0) / list.length : null);
const neighbours = Array.from({ length: nUnits }, () => []);
map.pair.forEach(([a, b], k) => { neighbours[a].push([b, map.ridge[k]]); neighbours[b].push([a, map.ridge[k]]); });
const bounds = map.centre.reduce((b, [x, y]) => [Math.min(b[0], x), Math.min(b[1], y), Math.max(b[2], x), Math.max(b[3], y)], [Infinity, Infinity, -Infinity, -Infinity])
  .map((v, i) => v + (i < 2 ? -0.6 : 0.6));
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#B8A600", "#7F7F7F"];
// cividis, by its ends and a few colours between
const CIVIDIS = [[0, 34, 78], [43, 68, 110], [87, 92, 109], [124, 123, 120], [166, 157, 117], [211, 193, 100], [254, 232, 56]];

function heat(value) {
  const at = Math.max(0, Math.min(1, value)) * (CIVIDIS.length - 1), low = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[low].map((c, i) => Math.round(c + (CIVIDIS[low + 1][i] - c) * (at - low)));
}

function clustersOfUnits(cut) {
  if (cut.isResult) return map.cluster.slice();
  const found = imagesOfUnit.map((list) => {
    const votes = new Map();
    for (const image of list) votes.set(cut.clusters[image], (votes.get(cut.clusters[image]) || 0) + 1);
    return list.length ? [...votes].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0][0] : null;
  });
  // a place without photographs belongs to the nearest neighbour that has a cluster
  for (let left = found.filter((c) => c === null).length; left > 0;) {
    const next = found.map((c, unit) => {
      if (c !== null) return c;
      const near = neighbours[unit].filter(([other]) => found[other] !== null).sort((a, b) => a[1] - b[1]);
      return near.length ? found[near[0][0]] : null;
    });
    next.forEach((c, unit) => { found[unit] = c; });
    const now = found.filter((c) => c === null).length;
    if (now === left) break;
    left = now;
  }
  return found;
}

function colourClusters() {
  const touching = new Map();
  map.pair.forEach(([a, b]) => {
    const [p, q] = [unitCluster[a], unitCluster[b]];
    if (p === q) return;
    for (const [u, v] of [[p, q], [q, p]]) { if (!touching.has(u)) touching.set(u, new Set()); touching.get(u).add(v); }
  });
  clusterColour = new Map();
  for (const [id] of [...groups].sort((a, b) => b[1].size - a[1].size)) {
    const near = [...(touching.get(id) || [])].map((other) => clusterColour.get(other));
    const counts = COLOURS.map((c) => [near.includes(c) ? 1 : 0, [...clusterColour.values()].filter((other) => other === c).length]);
    let best = 0;
    counts.forEach((c, i) => { if (c[0] < counts[best][0] || (c[0] === counts[best][0] && c[1] < counts[best][1])) best = i; });
    clusterColour.set(id, COLOURS[best]);
  }
}

const layer = () => $("layer").value;
function fit() {
  const width = canvas.parentElement.clientWidth;
  const spanX = bounds[2] - bounds[0], spanY = bounds[3] - bounds[1];
  const square = layer() === "tsne";
  const height = square ? Math.min(width, 760) : Math.min(Math.max(width * spanY / spanX, 240), Math.max(420, Math.min(900, window.innerHeight * 0.86)));
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  view.ratio = ratio; view.width = width; view.height = height;
  view.fit = Math.min(width / spanX, height / spanY);
  view.scale = view.fit;
  view.x = (bounds[0] + bounds[2]) / 2; view.y = (bounds[1] + bounds[3]) / 2;
  if (square) { view.x = 0; view.y = 0; view.fit = view.scale = Math.min(width, height) / 2.1; }
  requestDraw();
}
const toScreen = (x, y) => [(x - view.x) * view.scale + view.width / 2, (y - view.y) * view.scale + view.height / 2];
const toMap = (x, y) => [(x - view.width / 2) / view.scale + view.x, (y - view.height / 2) / view.scale + view.y];

let drawing = false;
function requestDraw() {
  if (drawing || !view.width) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; draw(); });
}

function polygon(unit) {
  context.beginPath();
  for (const [dx, dy] of map.corner) context.lineTo(...toScreen(map.centre[unit][0] + dx, map.centre[unit][1] + dy));
  context.closePath();
}

function drawImageAt(image, x, y, side) {
  const k = place[image];
  if (k < 0) return false;
  const entry = sprite(Math.floor(k / perSprite));
  if (!entry.ready) return false;
  const s = data.sprites.side, column = k % across, row = Math.floor((k % perSprite) / across);
  context.drawImage(entry.image, column * s, row * s, s, s, x - side / 2, y - side / 2, side, side);
  return true;
}

function badge(text, x, y, size, colour) {
  context.font = `700 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + size * 0.7, height = size * 1.35;
  context.beginPath(); context.roundRect(x, y, width, height, size * 0.35);
  context.fillStyle = "#fffffff2"; context.fill();
  context.lineWidth = 2; context.strokeStyle = colour; context.stroke();
  context.fillStyle = "#111"; context.fillText(text, x + width / 2, y + height / 2 + size * 0.06);
}

function halo(text, x, y, size, weight = 600) {
  context.font = `${weight} ${size}px system-ui, sans-serif`;
  context.lineWidth = Math.max(3, size / 3.5); context.lineJoin = "round";
  context.strokeStyle = "#fffffff0"; context.strokeText(text, x, y);
  context.fillStyle = "#111"; context.fillText(text, x, y);
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  context.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
  context.clearRect(0, 0, view.width, view.height);
  context.textAlign = "center"; context.textBaseline = "middle"; context.imageSmoothingQuality = "high";
  if (layer() === "tsne") return drawPlane(colour);
  const [left, top] = toMap(0, 0), [right, bottom] = toMap(view.width, view.height);
  const inside = ([x, y]) => x > left - 1 && x < right + 1 && y > top - 1 && y < bottom + 1;
  const size = view.scale, kind = layer(), hexagonal = map.corner.length === 6;
  const uMax = Math.max(...map.u, 1e-9), hitMax = Math.max(...map.hits, 1);
  const bare = [];
  for (let unit = 0; unit < nUnits; unit++) {
    if (!inside(map.centre[unit])) continue;
    const [x, y] = toScreen(...map.centre[unit]);
    let fill = null;
    if (kind === "u") fill = heat(map.u[unit] / uMax);
    if (kind === "hits") fill = heat(Math.sqrt(map.hits[unit] / hitMax));
    if (kind === "confidence" && unitConfidence[unit] !== null) fill = heat(unitConfidence[unit]);
    if (fill) { polygon(unit); context.fillStyle = `rgb(${fill})`; context.fill(); context.strokeStyle = context.fillStyle; context.lineWidth = 1; context.stroke(); }
    if (kind === "clusters") { polygon(unit); context.globalAlpha = map.hits[unit] ? 0.85 : 0.35; context.fillStyle = clusterColour.get(unitCluster[unit]) || "#888"; context.fill(); context.globalAlpha = 1; }
    if (kind === "photos") { polygon(unit); context.globalAlpha = 0.28; context.fillStyle = clusterColour.get(unitCluster[unit]) || "#888"; context.fill(); context.globalAlpha = 1; }
    if (kind === "photos" && map.typical[unit] >= 0) {
      const side = size * (hexagonal ? 0.76 : 0.9);
      if (!drawImageAt(map.typical[unit], x, y, side)) { context.fillStyle = "#fff8"; context.fillRect(x - side / 2, y - side / 2, side, side); }
    }
    if ($("hits").checked && map.hits[unit] > 1 && size >= 26 && kind !== "clusters") bare.push([unit, x, y]);
  }
  if ($("ridges").checked && kind === "photos") {
    context.lineCap = "round";
    map.pair.forEach(([a, b], k) => {
      if (!inside(map.centre[a]) || map.ridge[k] < 0.25) return;
      const [[x1, y1], [x2, y2]] = map.edge[k].map((p) => toScreen(...p));
      context.beginPath(); context.moveTo(x1, y1); context.lineTo(x2, y2);
      context.globalAlpha = map.ridge[k]; context.strokeStyle = colour("--text"); context.lineWidth = Math.max(1, size * 0.09 * map.ridge[k]); context.stroke();
    });
    context.globalAlpha = 1;
  }
  if ($("borders").checked) {
    for (const [style_, extra] of [["#fff", 2], [colour("--border"), 0]]) {
      context.beginPath(); context.lineCap = "round";
      map.pair.forEach(([a, b], k) => {
        if (unitCluster[a] === unitCluster[b] || !inside(map.centre[a])) return;
        const [[x1, y1], [x2, y2]] = map.edge[k].map((p) => toScreen(...p));
        context.moveTo(x1, y1); context.lineTo(x2, y2);
      });
      context.strokeStyle = style_; context.lineWidth = Math.min(Math.max(1.5, size * 0.05), 5) + extra; context.stroke();
    }
  }
  for (const [unit, x, y] of bare) halo(String(map.hits[unit]), x - size * 0.32, y + size * 0.34, Math.min(13, size * 0.28), 500);
  if (chosen.cluster !== null || chosen.unit !== null) {
    context.lineWidth = Math.min(Math.max(2.5, size * 0.07), 6); context.strokeStyle = colour("--accent");
    if (chosen.cluster !== null) {
      context.beginPath();
      map.pair.forEach(([a, b], k) => {
        if ((unitCluster[a] === chosen.cluster) === (unitCluster[b] === chosen.cluster)) return;
        const [[x1, y1], [x2, y2]] = map.edge[k].map((p) => toScreen(...p));
        context.moveTo(x1, y1); context.lineTo(x2, y2);
      });
      context.stroke();
    }
    if (chosen.unit !== null) { polygon(chosen.unit); context.stroke(); }
  }
  if ($("ids").checked) {
    for (const [id, at] of clusterCentres()) {
      if (!inside(at)) continue;
      const [x, y] = toScreen(...at);
      if (kind === "photos" && size >= 26) badge(String(id), x - size * 0.46, y - size * 0.46, Math.min(15, Math.max(9, size * 0.24)), clusterColour.get(id) || "#888");
      else halo(String(id), x, y, Math.min(24, Math.max(11, size * 0.5)));
    }
  }
}

function clusterCentres() {
  const sums = new Map();
  for (let unit = 0; unit < nUnits; unit++) {
    if (!map.hits[unit]) continue;
    const s = sums.get(unitCluster[unit]) || [0, 0, 0];
    s[0] += map.centre[unit][0]; s[1] += map.centre[unit][1]; s[2] += 1;
    sums.set(unitCluster[unit], s);
  }
  const centres = new Map();
  for (const [id, [x, y, count]] of sums) {
    // the place of the cluster nearest to its middle: a cluster may be in several parts
    let best = null, least = Infinity;
    for (let unit = 0; unit < nUnits; unit++) {
      if (unitCluster[unit] !== id || !map.hits[unit]) continue;
      const gap = Math.hypot(map.centre[unit][0] - x / count, map.centre[unit][1] - y / count);
      if (gap < least) { least = gap; best = map.centre[unit]; }
    }
    centres.set(id, best);
  }
  return centres;
}

function drawPlane(colour) {
  const clusters = data.cuts[cutIndex].clusters, middle = new Map();
  const side = view.scale > 2.2 * view.fit ? Math.min(64, 10 * view.scale / view.fit) : 0;
  data.tsne.images.forEach((image, k) => {
    const [x, y] = toScreen(data.tsne.xy[k][0], -data.tsne.xy[k][1]);
    const id = clusters[image];
    if (!middle.has(id)) middle.set(id, [[], []]);
    middle.get(id)[0].push(data.tsne.xy[k][0]); middle.get(id)[1].push(-data.tsne.xy[k][1]);
    if (x < -40 || y < -40 || x > view.width + 40 || y > view.height + 40) return;
    if (side && drawImageAt(image, x, y, side)) {
      context.lineWidth = 2; context.strokeStyle = clusterColour.get(id) || "#888"; context.strokeRect(x - side / 2, y - side / 2, side, side);
    } else {
      context.beginPath(); context.arc(x, y, id === chosen.cluster ? 5 : 3, 0, 7); context.fillStyle = clusterColour.get(id) || "#888"; context.fill();
      if (id === chosen.cluster) { context.lineWidth = 1.5; context.strokeStyle = colour("--text"); context.stroke(); }
    }
  });
  if ($("ids").checked) for (const [id, [xs, ys]] of middle) {
    const half = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
    halo(String(id), ...toScreen(half(xs), half(ys)), 13);
  }
}

function unitAt(x, y) {
  const [mx, my] = toMap(x, y);
  let best = null, least = 0.6;
  map.centre.forEach(([cx, cy], unit) => { const gap = Math.max(Math.abs(cx - mx), Math.abs(cy - my)); if (gap < least) { least = gap; best = unit; } });
  return best;
}
function pointAt(x, y) {
  let best = null, least = 14;
  data.tsne.xy.forEach(([px, py], k) => { const [sx, sy] = toScreen(px, -py), gap = Math.hypot(sx - x, sy - y); if (gap < least) { least = gap; best = data.tsne.images[k]; } });
  return best;
}
function chooseUnit(unit) {
  chosen.unit = unit;
  chosen.cluster = unit === null ? null : unitCluster[unit];
  fillSide();
  requestDraw();
}
function chooseCluster(id) {
  chosen.unit = null; chosen.cluster = id;
  fillSide(); requestDraw();
}
// as unit_row and unit_col of clusters.csv
const nameOfUnit = (unit) => `Place ${Math.floor(unit / map.cols)}, ${unit % map.cols}`;
function wordsOfUnit(unit) {
  const count = map.hits[unit] ? plural(map.hits[unit], "photograph") : "no photographs";
  return `${nameOfUnit(unit)}: ${count}, cluster ${unitCluster[unit]}`;
}

const SIDE_MAX = 60;
function fillSide() {
  const side = $("side");
  side.replaceChildren();
  if (chosen.unit === null && chosen.cluster === null) {
    side.append(make("p", { className: "how", textContent: "Click a place on the map, or move there with the arrow keys." }));
    return;
  }
  const group = groups.get(chosen.cluster);
  const whole = chosen.unit === null;
  const list = whole ? group.images : imagesOfUnit[chosen.unit];
  side.append(make("h3", { textContent: whole ? `Cluster ${chosen.cluster}` : nameOfUnit(chosen.unit) }));
  side.append(make("p", { className: "how", textContent: whole ? `${plural(group.size, "photograph")}, mean confidence ${percent(group.confidence)}` : `${plural(list.length, "photograph")}, cluster ${chosen.cluster}` }));
  const row = make("div", { className: "row" });
  for (const image of list.slice(0, SIDE_MAX)) row.append(photo(image, group && image === group.medoid ? "medoid" : ""));
  side.append(row);
  if (list.length > SIDE_MAX) side.append(make("p", { className: "how", textContent: `and ${list.length - SIDE_MAX} more below` }));
  const more = make("p", { className: "more" });
  if (!whole) more.append(make("button", { type: "button", className: "whole", textContent: `Whole cluster ${chosen.cluster} (${group ? group.size : 0})`, onclick: () => chooseCluster(chosen.cluster) }), " ");
  more.append(make("button", { type: "button", textContent: "Show in the list", onclick: () => goToCluster(chosen.cluster) }));
  side.append(more);
  side.scrollTop = 0;
}

let drag = null;
const pointers = new Map();
canvas.addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, event);
  drag = { x: event.offsetX, y: event.offsetY, vx: view.x, vy: view.y, moved: false };
  if (view.scale > view.fit * 1.01) canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (pointers.has(event.pointerId)) {
    const before = [...pointers.values()];
    pointers.set(event.pointerId, event);
    if (pointers.size === 2) {
      const now = [...pointers.values()];
      const span = ([a, b]) => Math.hypot(a.offsetX - b.offsetX, a.offsetY - b.offsetY);
      zoomAt((now[0].offsetX + now[1].offsetX) / 2, (now[0].offsetY + now[1].offsetY) / 2, span(now) / Math.max(1, span(before)));
      if (drag) drag.moved = true;
      return;
    }
  }
  if (drag && event.buttons) {
    const dx = event.offsetX - drag.x, dy = event.offsetY - drag.y;
    if (Math.hypot(dx, dy) > 5) drag.moved = true;
    if (drag.moved && view.scale > view.fit * 1.01) { view.x = drag.vx - dx / view.scale; view.y = drag.vy - dy / view.scale; requestDraw(); }
    return;
  }
  if (layer() === "tsne") { const image = pointAt(event.offsetX, event.offsetY); canvas.title = image === null ? "" : describe(image); return; }
  const unit = unitAt(event.offsetX, event.offsetY);
  canvas.title = unit === null ? "" : wordsOfUnit(unit);
});
const endPointer = (event) => { pointers.delete(event.pointerId); };
canvas.addEventListener("pointercancel", endPointer);
canvas.addEventListener("pointerup", endPointer);
canvas.addEventListener("click", (event) => {
  if (drag && drag.moved) { drag = null; return; }
  drag = null;
  if (layer() === "tsne") { const image = pointAt(event.offsetX, event.offsetY); if (image !== null) openPhoto(image); return; }
  const unit = unitAt(event.offsetX, event.offsetY);
  chooseUnit(unit);
  $("map-status").textContent = unit === null ? "" : wordsOfUnit(unit);
});
canvas.addEventListener("dblclick", () => { if (chosen.cluster !== null) chooseCluster(chosen.cluster); });
canvas.addEventListener("wheel", (event) => {
  // a plain wheel scrolls the page; with Ctrl or a pinch it zooms the map
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomAt(event.offsetX, event.offsetY, Math.exp(-event.deltaY / 300));
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "+" || event.key === "=") zoomAt(view.width / 2, view.height / 2, 1.4);
  else if (event.key === "-") zoomAt(view.width / 2, view.height / 2, 1 / 1.4);
  else if (event.key === "0") fit();
  else if (event.key === "Enter" && chosen.cluster !== null) chooseCluster(chosen.cluster);
  else if (event.key === "Escape") { chosen.unit = chosen.cluster = null; fillSide(); requestDraw(); }
  else if (step && layer() !== "tsne") {
    const next = chosen.unit === null ? 0 : neighbourTowards(chosen.unit, step);
    if (next !== null) {
      chooseUnit(next);
      $("map-status").textContent = wordsOfUnit(next);
    }
  } else return;
  event.preventDefault();
});
function neighbourTowards(unit, [dx, dy]) {
  const [x, y] = map.centre[unit];
  let best = null, most = 0.4;
  for (const [other] of neighbours[unit]) {
    const along = (map.centre[other][0] - x) * dx + (map.centre[other][1] - y) * dy;
    if (along > most) { most = along; best = other; }
  }
  return best;
}
function zoomAt(x, y, factor) {
  const [mx, my] = toMap(x, y);
  view.scale = Math.max(view.fit, Math.min(view.scale * factor, Math.max(view.fit * 12, 140)));
  view.x = mx - (x - view.width / 2) / view.scale;
  view.y = my - (y - view.height / 2) / view.scale;
  canvas.style.touchAction = view.scale > view.fit * 1.01 ? "none" : "pan-y";
  if (view.scale === view.fit) return fit();
  requestDraw();
}
$("zoom-in").addEventListener("click", () => zoomAt(view.width / 2, view.height / 2, 1.5));
$("zoom-out").addEventListener("click", () => zoomAt(view.width / 2, view.height / 2, 1 / 1.5));
$("zoom-fit").addEventListener("click", fit);
$("layer").addEventListener("change", fit);
for (const id of ["borders", "ridges", "hits", "ids"]) $(id).addEventListener("change", requestDraw);
new ResizeObserver(() => { if (canvas.parentElement.clientWidth !== view.width) fit(); }).observe(canvas.parentElement);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", requestDraw);

// ---- clusters: a card is filled when it comes near the view, and emptied when it is far away -----------------------
const PREVIEW = 24, CHUNK = 120;
const open = new Set();
const cards = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const card = entry.target;
    if (entry.isIntersecting) fillCard(card);
    else if (card.dataset.full && !card.contains(document.activeElement)) {
      card.style.minHeight = `${card.offsetHeight}px`;
      card.replaceChildren();
      delete card.dataset.full;
    }
  }
}, { rootMargin: "1200px" });
const chunks = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const chunk = entry.target;
    if (entry.isIntersecting && !chunk.firstChild) { for (const image of chunk.images) chunk.append(photo(image, chunk.frame(image))); chunk.style.minHeight = ""; }
    else if (!entry.isIntersecting && chunk.firstChild && !chunk.contains(document.activeElement)) { chunk.style.minHeight = `${chunk.offsetHeight}px`; chunk.replaceChildren(); }
  }
}, { rootMargin: "1500px" });

const SORTS = {
  size: (a, b) => b.size - a.size || a.id - b.id,
  doubt: (a, b) => b.doubt - a.doubt || a.id - b.id,
  sure: (a, b) => a.confidence - b.confidence || b.size - a.size,
  unsure: (a, b) => b.confidence - a.confidence || b.size - a.size,
  id: (a, b) => a.id - b.id,
};
function fillCards() {
  cards.disconnect();
  const list = [...groups.values()].sort(SORTS[$("sort").value]);
  const box = $("cards");
  box.replaceChildren(...list.map((group) => {
    const card = make("article", { className: "card", id: `cluster-${group.id}` });
    card.dataset.cluster = group.id;
    return card;
  }));
  for (const card of box.children) cards.observe(card);
  $("clusters-count").textContent = `${plural(list.length, "cluster")}${data.cuts[cutIndex].isResult ? "" : ", from the slider's cut, not the result"}`;
}
function labelsOf(images) {
  const counts = new Map();
  for (const image of images) if (data.label[image] >= 0) counts.set(data.label[image], (counts.get(data.label[image]) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}
function fillCard(card) {
  if (card.dataset.full) return;
  card.dataset.full = "1";
  const group = groups.get(+card.dataset.cluster), labels = labelsOf(group.images);
  const header = make("header", {}, make("h3", { textContent: `Cluster ${group.id}` }), make("span", { className: "tags", textContent: plural(group.size, "photograph") }));
  const bar = make("i"); bar.style.width = `${100 * group.confidence}%`;
  header.append(make("span", { className: "tags" }, `confidence ${percent(group.confidence)} `, make("span", { className: "bar-sure", "aria-hidden": "true" }, bar)));
  if (labels.length) {
    const words = labels.slice(0, 4).map(([label, count]) => `${data.models[label]} (${count})`).join(", ");
    header.append(make("span", { className: "tags", textContent: `${labels.length === 1 ? "model" : "models"} ${words}${labels.length > 4 ? ` and ${labels.length - 4} more` : ""}` }));
  }
  const onMap = make("button", { type: "button", textContent: "On the map", onclick: () => { chooseCluster(group.id); $("map").scrollIntoView(); canvas.focus({ preventScroll: true }); } });
  header.append(onMap);
  const images = $("within").value === "doubtful" ? [...group.images].sort((a, b) => data.confidence[a] - data.confidence[b] || rankOf[a] - rankOf[b]) : group.images;
  const shown = open.has(group.id) ? images.length : Math.min(PREVIEW, images.length);
  const frame = (image) => image === group.medoid ? "medoid" : labels.length > 1 && data.label[image] >= 0 && data.label[image] !== labels[0][0] ? "other" : "";
  const gallery = make("div", {});
  for (let start = 0; start < shown; start += CHUNK) {
    const chunk = make("div", { className: "chunk" });
    chunk.images = images.slice(start, Math.min(start + CHUNK, shown));
    if (start === 0) for (const image of chunk.images) chunk.append(photo(image, frame(image)));
    else { chunk.frame = frame; const across_ = Math.max(1, Math.floor((card.clientWidth - 32) / 102)); chunk.style.minHeight = `${Math.ceil(chunk.images.length / across_) * 102}px`; chunks.observe(chunk); }
    gallery.append(chunk);
  }
  card.replaceChildren(header, gallery);
  if (images.length > PREVIEW) {
    const all = open.has(group.id);
    card.append(make("button", { type: "button", className: "more", textContent: all ? "Show fewer" : `Show all ${images.length}`, onclick: () => {
      if (all) open.delete(group.id); else open.add(group.id);
      delete card.dataset.full; card.style.minHeight = ""; fillCard(card);
    } }));
  }
  card.style.minHeight = "";
}
function refillCards() { open.clear(); fillCards(); }
$("sort").addEventListener("change", refillCards);
$("within").addEventListener("change", refillCards);

function goToCluster(id) {
  const card = $(`cluster-${id}`);
  if (!card) return;
  for (const other of document.querySelectorAll(".card.aim")) other.classList.remove("aim");
  fillCard(card);
  card.classList.add("aim");
  card.scrollIntoView();
  const heading = card.querySelector("h3");
  heading.tabIndex = -1; heading.focus({ preventScroll: true });
}
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#cluster-"]');
  if (!link) return;
  event.preventDefault();
  if (cutIndex !== data.current) { cutInput.value = data.current; setCut(data.current); }
  goToCluster(+link.getAttribute("href").slice(9));
});

// ---- one photograph ------------------------------------------------------------------------------------------------
const detail = $("detail");
function openPhoto(image) {
  const group = groups.get(data.cuts[cutIndex].clusters[image]);
  const facts = make("dl");
  const fact = (name, value) => facts.append(make("dt", { textContent: name }), make("dd", {}, value));
  const link = (id) => make("a", { href: `#cluster-${id}`, textContent: `cluster ${id}`, onclick: () => detail.close() });
  fact("Cluster", link(data.cluster[image]));
  fact("Confidence", percent(data.confidence[image]));
  if (data.runnerUp[image] >= 0) fact("Runner-up", link(data.runnerUp[image]));
  if (data.label[image] >= 0) fact("True model", data.models[data.label[image]]);
  if (outliers.has(image)) fact("Outlier", "unlike the other photographs");
  fact("On the map", nameOfUnit(data.unit[image]));
  facts.append(make("dt"), make("dd", {}, make("button", { type: "button", textContent: "On the map", onclick: () => { detail.close(); chooseUnit(data.unit[image]); $("map").scrollIntoView(); } })));
  const near = make("div", { className: "row" });
  for (const other of group.images.filter((i) => i !== image).slice(0, 12)) near.append(photo(other, other === group.medoid ? "medoid" : ""));
  const close = make("button", { type: "button", textContent: "Close", onclick: () => detail.close() });
  detail.replaceChildren(
    make("div", { className: "top" }, make("h2", { id: "detail-title", textContent: data.names[image] }), close),
    make("div", { className: "body" }, thumb(image), facts, make("div", { className: "near" }, make("p", { className: "how", textContent: `Others in cluster ${group.id}` }), near)));
  if (!detail.open) detail.showModal();
  close.focus();
}
detail.addEventListener("click", (event) => { if (event.target === detail) detail.close(); });

// ---- search --------------------------------------------------------------------------------------------------------
const searchInput = $("search"), foundBox = $("found");
const folded = data.names.map((name) => name.normalize("NFC").toLowerCase());
function search() {
  const words = searchInput.value.normalize("NFC").toLowerCase().split(/\s+/).filter(Boolean);
  foundBox.replaceChildren();
  foundBox.hidden = words.length === 0;
  if (!words.length) return;
  const hits = [];
  let total = 0;
  for (let i = 0; i < n; i++) if (words.every((word) => folded[i].includes(word))) { total++; if (hits.length < 40) hits.push(i); }
  foundBox.append(make("p", { className: "how", role: "status", textContent: total ? plural(total, "photograph") + (total > hits.length ? `, the first ${hits.length}` : "") : "No file name has that" }));
  for (const image of hits) {
    foundBox.append(make("button", { type: "button", onclick: () => { foundBox.hidden = true; chooseUnit(data.unit[image]); openPhoto(image); } },
      thumb(image), make("span", { className: "name" }, data.names[image], make("br"), make("small", { textContent: `cluster ${data.cluster[image]}` }))));
  }
}
searchInput.addEventListener("input", search);
searchInput.addEventListener("focus", search);
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !typing && !detail.open) { event.preventDefault(); searchInput.focus(); }
  if (event.key === "Escape" && !foundBox.hidden) { foundBox.hidden = true; searchInput.focus(); }
  if (event.key === "ArrowDown" && event.target === searchInput) foundBox.querySelector("button")?.focus();
});
document.addEventListener("click", (event) => { if (!event.target.closest(".search")) foundBox.hidden = true; });

// ---- review: same or different ---------------------------------------------------------------------------------------
const store = `image-clustering ${data.dataset} ${data.key}`;
let marks = new Map();
try { marks = new Map(JSON.parse(localStorage.getItem(store) || "[]")); } catch { /* a browser that keeps nothing */ }
const pairKey = (a, b) => a < b ? `${a} ${b}` : `${b} ${a}`;
function setMark(a, b, relation) {
  if (relation) marks.set(pairKey(a, b), relation); else marks.delete(pairKey(a, b));
  try { localStorage.setItem(store, JSON.stringify([...marks])); } catch { /* as above */ }
  countMarks();
}
function countMarks() {
  const earlier = data.review.earlier.length;
  $("marks").textContent = `${plural(marks.size, "pair")} marked${earlier ? `, ${earlier} from before` : ""}`;
  $("download").disabled = marks.size === 0;
  $("forget").disabled = marks.size === 0;
}
let questions = 0;
function question(a, b, words) {
  const name = `pair-${questions++}`;
  const set = make("fieldset", { className: "marks" }, make("legend", { textContent: words }));
  set.dataset.pair = pairKey(a, b);
  for (const relation of ["same", "different"]) {
    const input = make("input", { type: "radio", name, value: relation, checked: marks.get(pairKey(a, b)) === relation });
    // a second click takes the mark back
    input.addEventListener("click", () => {
      if (marks.get(pairKey(a, b)) === relation) { input.checked = false; setMark(a, b, null); } else setMark(a, b, relation);
    });
    set.append(make("label", {}, input, make("span", { textContent: relation })));
  }
  return set;
}
function figure(image, words) {
  return make("figure", {}, photo(image), make("figcaption", { textContent: words }));
}
function fillReview() {
  questions = 0;
  const { merges, splits, images } = data.review;
  const fill = (id, items) => $(id).replaceChildren(...(items.length ? items : [make("p", { className: "how", textContent: "None." })]));
  const size = new Map(data.clusters.map((row) => [row.id, row.size]));
  fill("review-merges", merges.map((item) => make("article", { className: "pair" },
    make("div", { className: "two" }, ...item.clusters.map((id, k) => figure(item.images[k], `cluster ${id}, ${plural(size.get(id), "photograph")}`))),
    question(...item.images, "These two show"))));
  fill("review-splits", splits.map((item) => make("article", { className: "pair" },
    make("div", { className: "two" }, ...item.images.map((image, k) => figure(image, `cluster ${item.cluster}, ${item.sizes[k]} like this`))),
    question(...item.images, "These two show"))));
  fill("review-images", images.map((item) => {
    const card = make("article", { className: "pair" });
    const two = make("div", { className: "two" }, figure(item.image, `in cluster ${data.cluster[item.image]}, confidence ${percent(data.confidence[item.image])}`));
    if (item.own !== null) two.append(figure(item.own, `its cluster ${data.cluster[item.own]}`));
    if (item.other !== null) two.append(figure(item.other, `runner-up ${data.cluster[item.other]}`));
    card.append(two);
    if (item.own !== null) card.append(question(item.image, item.own, `With cluster ${data.cluster[item.own]}`));
    if (item.other !== null) card.append(question(item.image, item.other, `With cluster ${data.cluster[item.other]}`));
    return card;
  }));
  countMarks();
}
const cell = (text) => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
function corrections() {
  const rows = [];
  for (const [key, relation] of marks) { const [a, b] = key.split(" ").map(Number); rows.push([data.names[a], data.names[b], relation]); }
  const same = ([a, b], [c, d]) => (a === c && b === d) || (a === d && b === c);
  const earlier = data.review.earlier.filter((old) => !rows.some((row) => same(old, row)));
  return [data.review.columns, ...earlier, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}
$("download").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([corrections()], { type: "text/csv;charset=utf-8" }));
  const link = make("a", { href: url, download: "corrections.csv" });
  document.body.append(link); link.click(); link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
});
$("forget").addEventListener("click", () => {
  if (!confirm(`Clear ${plural(marks.size, "mark")}?`)) return;
  marks.clear();
  try { localStorage.removeItem(store); } catch { /* nothing was kept */ }
  fillReview();
});

// ---- begin -----------------------------------------------------------------------------------------------------------
fillReview();
setCut(cutIndex);
fit();
addEventListener("beforeprint", () => {
  let left = 300;
  for (const card of document.querySelectorAll(".card")) if (left-- > 0) fillCard(card);
  for (const element of document.querySelectorAll(".photo[data-image], .thumb[data-image]")) if (place[+element.dataset.image] >= 0) show(element);
});
if (location.hash.startsWith("#cluster-")) goToCluster(+location.hash.slice(9));
})();
