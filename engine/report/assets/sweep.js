// Heat map and parallel coordinates over the settings that vary.

// What can span a sweep: {name, get}; model, data and seed beside the varied settings. Only what varies among the runs.
function axesOf(task, runs) {
  const found = task.keys.map((name, i) => ({ name, get: (run) => run.values[i] }));
  for (const name of ["model", "data", "seed"]) found.push({ name, get: (run) => run[name] });
  return found.filter((axis) => unique(runs.map(axis.get).filter((v) => v !== undefined && v !== null)).length > 1);
}

// 0 for the worst and 1 for the best of the values.
function quality(values, lower) {
  const low = Math.min(...values),
    high = Math.max(...values);
  return (value) => (high === low ? 1 : lower ? (high - value) / (high - low) : (value - low) / (high - low));
}

function drawSweep(task, runs) {
  const done = runs.filter((run) => run.status === "done");
  const axes = axesOf(task, done);
  const names = axes.map((axis) => axis.name);
  $("sweep").classList.toggle("empty", axes.length < 2);
  const choices = names.map((name) => [name, name]);
  options($("heat-rows"), choices, names.includes($("heat-rows").value) ? $("heat-rows").value : names[0]);
  options($("heat-columns"), choices, names.includes($("heat-columns").value) ? $("heat-columns").value : names[1]);
  if ($("heat-rows").value === $("heat-columns").value && names.length > 1)
    $("heat-columns").value = names.find((name) => name !== $("heat-rows").value);
  options(
    $("sweep-metric"),
    task.metrics.map((name, i) => [i, name]),
    $("sweep-metric").value,
  );
  const metric = Number($("sweep-metric").value);
  const scored = done.filter((run) => isNumber(run.metrics[metric]));
  if (axes.length < 2 || !scored.length) {
    $("sweep-note").textContent = "Fewer than two settings vary among the finished runs here.";
    $("heat-map").replaceChildren();
    $("parallel").replaceChildren();
    return;
  }
  const mixed = unique(scored.map((run) => run.data)).length > 1;
  $("sweep-note").textContent =
    `Means over ${scored.length} finished runs; the stronger the colour, the better ` +
    `(${task.lower[metric] ? "less" : "more"}).` +
    (mixed ? " Choose one data set to compare settings." : "");
  const pick = (id) => axes.find((axis) => axis.name === $(id).value);
  drawHeat(scored, metric, task, pick("heat-rows"), pick("heat-columns"));
  drawParallel(
    scored,
    metric,
    task,
    axes.filter((axis) => axis.name !== "seed"),
  );
}

const MOST_LEVELS = 24;

// The steps of one side of the heat map: its values; where there are too many, ranges of numbers, or the first texts.
function steps(axis, runs) {
  const value = (run) => axis.get(run) ?? "–";
  const levels = unique(runs.map(value)).sort((a, b) => compare(a, b));
  if (levels.length <= MOST_LEVELS) return { levels, of: value };
  if (!levels.every(isNumber)) return { levels: levels.slice(0, MOST_LEVELS), of: value };
  const [low, high] = [levels[0], levels[levels.length - 1]];
  const log = low > 0 && high / low >= 50;
  const parts = 8;
  const edge = (i) => (log ? low * (high / low) ** (i / parts) : low + ((high - low) * i) / parts);
  const names = Array.from({ length: parts }, (_, i) => `${short(edge(i))} to ${short(edge(i + 1))}`);
  const at = scale([low, high], 0, parts, log);
  return { levels: names, of: (run) => names[Math.min(parts - 1, Math.floor(at(axis.get(run))))] };
}

const short = (value) => tickText(Number(value.toPrecision(2)));

function drawHeat(runs, metric, task, rows, columns) {
  const [down, across] = [steps(rows, runs), steps(columns, runs)];
  const cells = new Map();
  for (const run of runs) {
    const key = JSON.stringify([down.of(run), across.of(run)]);
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(run.metrics[metric]);
  }
  const means = new Map([...cells].map(([key, values]) => [key, values.reduce((a, b) => a + b) / values.length]));
  const good = quality([...means.values()], task.lower[metric]);
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, `${rows.name} \\ ${columns.name}`),
    ...across.levels.map((level) => h("th", { scope: "col", class: "number" }, tickText(level))),
  );
  const body = down.levels.map((row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, tickText(row)),
      ...across.levels.map((column) => {
        const key = JSON.stringify([row, column]),
          value = means.get(key);
        if (value === undefined) return h("td", { class: "number" }, "");
        const cell = h("td", { class: "number heat", title: `${cells.get(key).length} runs` }, format(value));
        cell.style.setProperty("--good", good(value).toFixed(3));
        cell.classList.toggle("strong", good(value) > 0.58);
        return cell;
      }),
    ),
  );
  $("heat-map").replaceChildren(h("table", { class: "heat-table" }, h("thead", {}, head), h("tbody", {}, ...body)));
}

const MOST_LINES = 500;

// One vertical axis: where a value stands on it, and its labels. Texts stand evenly, numbers by size.
function verticalAxis(values, top, bottom, bySize) {
  const levels = unique(values).sort((a, b) => compare(a, b));
  if (!levels.every(isNumber) || (levels.length <= 6 && !bySize) || levels.length === 1) {
    const at = new Map(
      levels.map((level, i) => [
        level,
        levels.length > 1 ? bottom - (i / (levels.length - 1)) * (bottom - top) : (top + bottom) / 2,
      ]),
    );
    const every = Math.ceil(levels.length / 12);
    return {
      at: (value) => at.get(value),
      labels: levels.filter((level, i) => i % every === 0).map((level) => [at.get(level), tickText(level)]),
    };
  }
  const domain = [levels[0], levels[levels.length - 1]],
    log = domain[0] > 0 && domain[1] / domain[0] >= 50;
  const at = scale(domain, bottom, top, log);
  return { at, labels: ticks(...domain, log).map((value) => [at(value), tickText(value)]) };
}

function drawParallel(runs, metric, task, axes) {
  const best = [...runs].sort((a, b) => compare(a.metrics[metric], b.metrics[metric], !task.lower[metric]));
  const lines = best.slice(0, MOST_LINES).reverse(); // the best are drawn last, on top
  const shown = [...axes.slice(0, 8), { name: task.metrics[metric], get: (run) => run.metrics[metric] }];
  const gap = Math.max(120, ($("parallel").clientWidth - 150) / (shown.length - 1)),
    height = 320,
    top = 34,
    bottom = height - 14,
    left = 70;
  const width = left + gap * (shown.length - 1) + 80;
  const svg = s("svg", {
    class: "parallel",
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "img",
    "aria-label": `${lines.length} runs over ${shown.map((axis) => axis.name).join(", ")}`,
  });
  const scales = shown.map((axis, i) =>
    verticalAxis(
      lines.map((run) => axis.get(run) ?? "–"),
      top,
      bottom,
      i === shown.length - 1,
    ),
  );
  const good = quality(
    lines.map((run) => run.metrics[metric]),
    task.lower[metric],
  );
  for (const run of lines) {
    const points = shown
      .map((axis, i) => `${(left + gap * i).toFixed(1)},${scales[i].at(axis.get(run) ?? "–").toFixed(1)}`)
      .join(" ");
    const line = s(
      "polyline",
      { class: "thread", points },
      s("title", {}, `${run.name}: ${task.metrics[metric]} ${format(run.metrics[metric])}\n${setUp(task, run)}`),
    );
    line.style.setProperty("--good", good(run.metrics[metric]).toFixed(3));
    svg.append(line);
  }
  shown.forEach((axis, i) => {
    const x = left + gap * i;
    svg.append(s("line", { class: "axis", x1: x, x2: x, y1: top, y2: bottom }));
    svg.append(
      s(
        "text",
        { class: "label", x, y: 14, "text-anchor": "middle" },
        axis.name.split(".").pop(),
        s("title", {}, axis.name),
      ),
    );
    for (const [y, text] of scales[i].labels)
      svg.append(
        s(
          "text",
          { class: "tick halo", x: x - 6, y: y + 4, "text-anchor": "end" },
          text.length > 14 ? `${text.slice(0, 13)}…` : text,
        ),
      );
  });
  const note =
    best.length > MOST_LINES ? [h("p", { class: "muted" }, `The best ${MOST_LINES} of ${best.length} runs.`)] : [];
  $("parallel").replaceChildren(svg, ...note);
}
