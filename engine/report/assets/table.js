// The leaderboard: a row per run, or per group of runs that are the same but for the seed.

const badge = (text, title) => h("span", { class: "badge", title }, text);

function statusCell(run) {
  return h(
    "span",
    { class: `status status-${/^[a-z]+$/.test(run.status) ? run.status : "other"}`, title: run.error },
    run.status,
  );
}

// What one should know before comparing a run, or the runs behind a mean.
function badges(runs) {
  const found = [];
  if (runs.some((run) => run.stale))
    found.push(badge("other code", `made by other code than the present one (${DATA.code})`));
  const changed = unique(runs.flatMap((run) => (run.published && run.changed) || []));
  if (changed.length) found.push(badge("not the published set-up", changed.join(", ")));
  for (const mode of unique(runs.flatMap((run) => run.mode || [])))
    found.push(badge(`mode=${mode}`, "scored by another mode than fit"));
  return found;
}

// The runs behind a row's numbers.
const counted = (task, group) =>
  (group.counted.length ? group.counted : group.members).map((place) => task.runs[place]);

// A row of the table: a run, or a group of runs that are the same but for the seed.
function runRow(run, place) {
  return { id: `run-${place}`, run, counted: [run], metrics: run.metrics, seconds: run.seconds, memory: run.memory };
}

function groupRow(task, group, place) {
  const behind = counted(task, group);
  const members = group.members.map((member) => task.runs[member]);
  return {
    id: `group-${place}`,
    run: behind[0],
    counted: behind,
    group,
    members,
    metrics: group.metrics,
    seconds: group.seconds,
    memory: group.memory,
  };
}

function metricCell(row, i) {
  const spread = row.group && isNumber(row.group.std[i]) ? ` ± ${row.group.std[i].toPrecision(2)}` : "";
  return isNumber(row.metrics[i]) ? format(row.metrics[i]) + spread : "";
}

function statuses(row) {
  if (!row.group) return statusCell(row.run);
  const counts = unique(row.members.map((run) => run.status)).map((status) => {
    const found = row.members.filter((run) => run.status === status);
    return h("span", {}, statusCell(found[0]), row.members.length > 1 ? ` × ${found.length} ` : "");
  });
  return h("span", {}, ...counts);
}

function columns(task, view) {
  const primary = task.metrics[0];
  const published = (row) => row.run.published && row.run.published[0];
  const gap = (row) =>
    published(row) && isNumber(row.metrics[0]) ? 100 * (row.metrics[0] / published(row) - 1) : null;
  const number = (name, title, get, show = format) => ({
    name,
    title,
    number: true,
    get,
    show: (row) => show(get(row)),
  });
  const text = (name, title, get, show) => ({ name, title, get, show: show || get });
  const shown = task.metrics.slice(0, view.allMetrics ? task.metrics.length : task.main);
  const noted = task.runs.some((run) => badges([run]).length);
  const stated = task.runs.some((run) => run.published && isNumber(run.published[0]));
  return [
    { name: "run", title: "click for its files and figures", get: (row) => shortName(row.run), head: true },
    text("status", "", (row) => row.run.status, statuses),
    text("model", "", (row) => row.run.model),
    text("data", "", (row) => row.run.data),
    task.runs.some((run) => run.preset) && text("preset", "", (row) => row.run.preset),
    task.keys.length &&
      text(
        "set-up",
        "settings that vary here",
        (row) => setUp(task, row.run),
        (row) => setUpCell(task, row.run),
      ),
    view.grouped
      ? number("n", "finished seeds in the mean", (row) => row.group.counted.length)
      : number(
          "seed",
          "",
          (row) => row.run.seed,
          (seed) => (isNumber(seed) ? String(seed) : ""),
        ),
    ...shown.map((name, i) => ({
      name,
      number: true,
      title: task.lower[i] ? "less is better" : "more is better",
      get: (row) => row.metrics[i],
      show: (row) => metricCell(row, i),
      best: i,
    })),
    stated && number("published", `the paper's ${primary} for this set-up`, published),
    stated && number("difference", `ours against the published ${primary}`, gap, percent),
    noted &&
      text(
        "remarks",
        "",
        (row) => badges(row.counted).length || null,
        (row) => h("span", {}, ...badges(row.counted)),
      ),
    number("train s", "seconds of training", (row) => row.seconds),
    number("memory MB", "peak memory", (row) => row.memory),
    number("params", "parameters", (row) => row.run.params, scaled),
    number("FLOPs", "of one sample's forward pass", (row) => row.run.flops, scaled),
    task.runs.some((run) => isNumber(run.energy)) && number("energy", "as the run states it", (row) => row.run.energy),
  ].filter(Boolean);
}

// The best value of each metric among the finished runs of one data set under the same data settings.
function bests(task, rows) {
  const own = task.keys
    .map((key, i) => i)
    .filter((i) => task.keys[i].startsWith("data.") && !/batch_size|lookback|workers/.test(task.keys[i]));
  const problem = (run) => [run.data, ...own.map((i) => run.values[i])].join("\u0000");
  const best = new Map();
  for (const row of rows) {
    if (row.run.status !== "done") continue;
    row.metrics.forEach((value, i) => {
      if (!isNumber(value)) return;
      const key = `${problem(row.run)}\u0000${i}`;
      const before = best.get(key);
      if (before === undefined || (task.lower[i] ? value < before : value > before)) best.set(key, value);
    });
  }
  return (row, i) => row.run.status === "done" && best.get(`${problem(row.run)}\u0000${i}`) === row.metrics[i];
}

function headCell(column, sort, choose) {
  const direction = sort.column === column.name ? (sort.descending ? "descending" : "ascending") : "none";
  const button = h(
    "button",
    { type: "button", title: column.title || null, onclick: () => choose(column.name) },
    column.name,
  );
  return h("th", { scope: "col", "aria-sort": direction, class: column.number ? "number" : null }, button);
}

function drawTable(task, view, rows, update) {
  const found = columns(task, view);
  const sorted = found.find((column) => column.name === view.sort.column);
  const ordered = sorted ? [...rows].sort((a, b) => compare(sorted.get(a), sorted.get(b), view.sort.descending)) : rows;
  const isBest = bests(task, rows);
  const choose = (name) => {
    view.sort = { column: name, descending: view.sort.column === name && !view.sort.descending };
    view.page = 0;
    update();
    [...$("leaderboard-table").querySelectorAll("th button")].find((button) => button.textContent === name).focus();
  };
  const size = view.pageSize || ordered.length || 1;
  view.page = Math.min(view.page, Math.max(0, Math.ceil(ordered.length / size) - 1));
  const body = h("tbody");
  for (const row of ordered.slice(view.page * size, (view.page + 1) * size))
    body.append(bodyRow(task, view, row, found, isBest));
  const head = h("thead", {}, h("tr", {}, ...found.map((column) => headCell(column, view.sort, choose))));
  $("leaderboard-table").replaceChildren(h("table", {}, head, body));
  drawPager(view, ordered.length, size, update);
}

function bodyRow(task, view, row, found, isBest) {
  const opener = h(
    "button",
    { type: "button", class: "opener", "aria-expanded": "false", title: row.run.name },
    shortName(row.run),
  );
  const cells = found.map((column) => {
    if (column.head) return h("th", { scope: "row" }, opener);
    const best = column.best !== undefined && isNumber(row.metrics[column.best]) && isBest(row, column.best);
    return h(
      "td",
      { class: [column.number ? "number" : "", best ? "best" : ""].join(" ").trim() || null },
      column.show(row),
    );
  });
  const line = h("tr", { id: row.id }, ...cells);
  opener.addEventListener("click", () => {
    const open = opener.getAttribute("aria-expanded") === "true";
    opener.setAttribute("aria-expanded", String(!open));
    if (open) line.nextSibling.remove();
    else line.after(detailRow(task, row, found.length));
  });
  return line;
}

function drawPager(view, total, size, update) {
  const pages = Math.ceil(total / size);
  const go = (step) => () => {
    view.page += step;
    update();
    $("leaderboard").scrollIntoView();
  };
  const sizes = h(
    "select",
    {
      "aria-label": "Rows per page",
      onchange: () => {
        view.pageSize = Number(sizes.value);
        view.page = 0;
        update();
      },
    },
    ...[
      [50, "50 rows"],
      [200, "200 rows"],
      [0, "all rows"],
    ].map(([value, text]) => h("option", { value }, text)),
  );
  sizes.value = view.pageSize;
  const first = total ? view.page * size + 1 : 0;
  $("pager").replaceChildren(
    h("button", { type: "button", disabled: view.page === 0, onclick: go(-1) }, "Previous"),
    h("button", { type: "button", disabled: view.page >= pages - 1, onclick: go(1) }, "Next"),
    h("span", {}, `${first}–${Math.min(total, (view.page + 1) * size)} of ${total.toLocaleString("en")}`),
    sizes,
  );
}
