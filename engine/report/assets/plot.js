// Axes, learning curves, and cost against quality, as SVG.

const COLOURS = 10;
const stroke = (i) => `var(--c${i % COLOURS})`;
const dashes = (i) => ["", "5 3", "2 2", "8 3 2 3"][Math.floor(i / COLOURS) % 4] || null;

// Four to eight round numbers from low to high; on a logarithmic axis, in ratios of 2, 5 or 10.
function ticks(low, high, log) {
  if (log && high / low >= 10) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const m of Math.log10(high / low) < 2 ? [1, 2, 5] : [1]) found.push(m * 10 ** e);
    const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    const every = Math.ceil(inside.length / 8);
    return inside.length >= 2 ? inside.filter((value, i) => i % every === 0) : [low, high];
  }
  const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((candidate) => candidate >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

function tickText(value) {
  if (!isNumber(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 1e4) return scaled(value).replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, "");
  if (size !== 0 && size < 1e-3) return value.toExponential(0);
  return String(Number(value.toPrecision(6)));
}

// [low, high] of the values, never empty, with a margin.
function extent(values, log) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (!log || value > 0) { low = Math.min(low, value); high = Math.max(high, value); }
  if (!(low <= high)) return [log ? 1 : 0, log ? 10 : 1];
  if (low === high) return log ? [low / 2, high * 2] : [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
  if (log) { const margin = (high / low) ** 0.04; return [low / margin, high * margin]; }
  const margin = (high - low) * 0.04;
  return [low - margin, high + margin];
}

function scale([low, high], from, to, log) {
  const f = log ? Math.log10 : (value) => value;
  return (value) => from + ((f(value) - f(low)) / (f(high) - f(low))) * (to - from);
}

// An SVG with both axes drawn: what is plotted goes between `axes.x` and `axes.y`.
function frame(place, { x, y, label }) {
  const width = Math.max(280, place.clientWidth || 640), height = Math.min(380, Math.max(240, width * 0.5));
  const left = 56, right = width - 10, top = 12, bottom = height - 40;
  const axes = { x: scale(x.domain, left, right, x.log), y: scale(y.domain, bottom, top, y.log) };
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  for (const value of ticks(...y.domain, y.log)) {
    svg.append(s("line", { class: "grid", x1: left, x2: right, y1: axes.y(value), y2: axes.y(value) }));
    svg.append(s("text", { class: "tick", x: left - 6, y: axes.y(value) + 4, "text-anchor": "end" }, tickText(value)));
  }
  const across = ticks(...x.domain, x.log), every = Math.ceil((across.length * 56) / (right - left));
  across.filter((value, i) => i % every === 0).forEach((value) => {
    svg.append(s("line", { class: "grid", x1: axes.x(value), x2: axes.x(value), y1: top, y2: bottom }));
    svg.append(s("text", { class: "tick", x: axes.x(value), y: bottom + 16, "text-anchor": "middle" }, tickText(value)));
  });
  svg.append(s("text", { class: "label", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.label));
  svg.append(s("text", { class: "label", x: -(top + bottom) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle" }, y.label));
  place.replaceChildren(svg);
  return { svg, axes };
}

function drawCurves(task, view, runs) {
  const carrying = bestFirst(task, runs.filter((run) => run.curves));
  const names = unique(carrying.flatMap((run) => Object.keys(run.curves)));
  const limit = DATA.curves.runs >= DATA.curves.most ? `, the best of every data set: ${DATA.curves.most} are embedded at most` : "";
  $("curves-note").textContent = names.length
    ? `${carrying.length} of ${runs.length} runs carry curves${limit}. At most ${DATA.curves.points} points a curve; metrics.csv holds all.`
    : "No run here has a metrics.csv.";
  options($("curve-metric"), names.map((name) => [name, name]), view.curve);
  view.curve = $("curve-metric").value;
  if (!view.drawn) view.drawn = new Set(carrying.slice(0, 6));
  drawPicker(task, view, carrying);
  drawChosen(view, carrying);
}

function bestFirst(task, runs) {
  return [...runs].sort((a, b) => compare(a.metrics[0], b.metrics[0], !task.lower[0]));
}

function drawPicker(task, view, carrying) {
  const entries = carrying.map((run) => {
    const box = h("input", { type: "checkbox", checked: view.drawn.has(run), onchange: () => {
      if (box.checked) view.drawn.add(run); else view.drawn.delete(run);
      drawChosen(view, carrying);
    } });
    const swatch = s("svg", { class: "swatch", width: 18, height: 10, "aria-hidden": "true" }, s("line", { x1: 0, x2: 18, y1: 5, y2: 5 }));
    run.swatch = swatch.firstChild;
    const seed = isNumber(run.seed) ? ` seed ${run.seed}` : "";
    return h("label", { title: `${run.name} ${setUp(task, run)}` }, box, swatch, h("span", {}, `${shortName(run)} · ${run.data}${seed}`));
  });
  $("curve-picker").replaceChildren(...entries);
}

function drawChosen(view, carrying) {
  const chosen = carrying.filter((run) => view.drawn.has(run) && run.curves[view.curve]);
  carrying.forEach((run) => { run.swatch.style.cssText = ""; });
  const log = $("curve-log").checked;
  const values = chosen.flatMap((run) => run.curves[view.curve][1]);
  if (!values.length) return $("curve-plot").replaceChildren(h("p", { class: "muted" }, "Nothing chosen."));
  const { svg, axes } = frame($("curve-plot"), {
    x: { domain: extent(chosen.flatMap((run) => run.curves[view.curve][0])), label: "step" },
    y: { domain: extent(values, log), label: view.curve, log },
    label: `${view.curve} over the steps of ${chosen.length} runs`,
  });
  chosen.forEach((run, i) => {
    const [steps, values] = run.curves[view.curve];
    const points = steps.map((step, k) => [step, values[k]]).filter(([, value]) => !log || value > 0);
    const path = points.map(([x, y]) => `${axes.x(x).toFixed(1)},${axes.y(y).toFixed(1)}`).join(" ");
    const paint = { stroke: stroke(i), "stroke-dasharray": dashes(i) };
    svg.append(s("polyline", { class: "curve", points: path, ...paint }, s("title", {}, run.name)));
    if (points.length < 30)
      for (const [x, y] of points) svg.append(s("circle", { cx: axes.x(x), cy: axes.y(y), r: 2.5, fill: stroke(i) }, s("title", {}, `${run.name}: ${format(y)} at step ${x}`)));
    for (const [name, value] of Object.entries(paint)) if (value) run.swatch.style.setProperty(name, value);
  });
}

const COSTS = { seconds: "training seconds", memory: "peak memory (MB)", params: "parameters", flops: "FLOPs of a forward pass", energy: "energy" };

// The runs that no other run beats at lower cost, from cheap to dear.
function front(points, lower) {
  let best = null;
  return [...points].sort((a, b) => a.x - b.x || (lower ? a.y - b.y : b.y - a.y)).filter(({ y }) => {
    const better = best === null || (lower ? y < best : y > best);
    if (better) best = y;
    return better;
  });
}

function drawCost(task, runs) {
  const costs = Object.keys(COSTS).filter((name) => task.runs.some((run) => isNumber(run[name])));
  options($("cost-x"), costs.map((name) => [name, COSTS[name]]), $("cost-x").value);
  options($("cost-y"), task.metrics.map((name, i) => [i, name]), $("cost-y").value);
  const cost = $("cost-x").value, metric = Number($("cost-y").value), log = $("cost-log").checked;
  const points = runs
    .filter((run) => run.status === "done" && isNumber(run[cost]) && isNumber(run.metrics[metric]) && (!log || run[cost] > 0))
    .map((run) => ({ run, x: run[cost], y: run.metrics[metric] }));
  const sets = unique(points.map(({ run }) => run.data));
  $("cost-note").textContent = points.length
    ? `${points.length} finished runs. ` + (sets.length > 1 ? "Choose one data set to compare them." : "The line joins the runs that nothing cheaper beats.")
    : "No finished run here states both.";
  if (!points.length) return $("cost-plot").replaceChildren();
  const { svg, axes } = frame($("cost-plot"), {
    x: { domain: extent(points.map(({ x }) => x), log), label: COSTS[cost], log },
    y: { domain: extent(points.map(({ y }) => y)), label: task.metrics[metric] },
    label: `${COSTS[cost]} against ${task.metrics[metric]}`,
  });
  const at = ({ x, y }) => `${axes.x(x).toFixed(1)},${axes.y(y).toFixed(1)}`;
  if (sets.length === 1) svg.append(s("polyline", { class: "front", points: front(points, task.lower[metric]).map(at).join(" ") }));
  const models = unique(points.map(({ run }) => run.model));
  for (const point of points) {
    const text = `${point.run.name}\n${COSTS[cost]} ${format(point.x)}\n${task.metrics[metric]} ${format(point.y)}`;
    svg.append(s("circle", { class: "dot", cx: axes.x(point.x), cy: axes.y(point.y), r: 4, fill: stroke(models.indexOf(point.run.model)) }, s("title", {}, text)));
  }
  const key = (model, i) => h("span", {}, s("svg", { width: 10, height: 10, "aria-hidden": "true" }, s("circle", { cx: 5, cy: 5, r: 4, fill: stroke(i) })), ` ${model}`);
  $("cost-plot").append(h("p", { class: "key" }, ...models.map(key)));
}
