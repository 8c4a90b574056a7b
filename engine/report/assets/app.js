// What is chosen, and what follows from it.

const DATA = JSON.parse($("data").textContent);
const view = {
  task: null,
  sort: { column: null, descending: false },
  page: 0,
  pageSize: 50,
  grouped: false,
  allMetrics: false,
  curve: null,
  drawn: null,
};

function matches(task, run) {
  const chosen = (id, value) => !$(id).value || $(id).value === value;
  if (!chosen("data-filter", run.data) || !chosen("model", run.model) || !chosen("status", run.status)) return false;
  const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  if (run.search === undefined)
    run.search = [run.name, run.model, run.data, run.preset, run.overrides, run.status, run.error, setUp(task, run)]
      .join(" ")
      .toLowerCase();
  return words.every((word) => run.search.includes(word));
}

function update() {
  const task = view.task;
  const visible = new Set(task.runs.filter((run) => matches(task, run)));
  const rows = view.grouped
    ? task.groups
        .map((group, i) => groupRow(task, group, i))
        .filter((row) => row.members.some((run) => visible.has(run)))
    : task.runs.map(runRow).filter((row) => visible.has(row.run));
  $("count").textContent = `${visible.size.toLocaleString("en")} of ${task.runs.length.toLocaleString("en")} runs`;
  drawTable(task, view, rows, () => update());
  view.visible = [...visible];
  drawPublished(task, (run) => visible.has(run));
  drawCharts();
}

function drawCharts() {
  drawCurves(view.task, view, view.visible);
  drawSweep(view.task, view.visible);
  drawCost(view.task, view.visible);
}

function chooseTask(name) {
  const task = DATA.tasks.find((candidate) => candidate.name === name);
  Object.assign(view, { task, sort: { column: null, descending: false }, page: 0, curve: null, drawn: null });
  for (const [id, key, all] of [
    ["data-filter", "data", "All data"],
    ["model", "model", "All models"],
    ["status", "status", "Any status"],
  ]) {
    const levels = unique(task.runs.map((run) => run[key])).sort((a, b) => compare(a, b));
    options($(id), [["", all], ...levels.map((level) => [level, level])], "");
  }
  const one = task.metrics.length
    ? `By data set, best ${task.metrics[0]} first; bold is the best of its data set. `
    : "";
  $("leaderboard-note").textContent = `${one}Click a heading to sort, a run for its files and figures.`;
  update();
}

function summary() {
  const runs = DATA.tasks.reduce((sum, task) => sum + task.runs.length, 0);
  const states = {};
  for (const task of DATA.tasks) for (const run of task.runs) states[run.status] = (states[run.status] || 0) + 1;
  const parts = Object.entries(states)
    .map(([status, n]) => `${n.toLocaleString("en")} ${status}`)
    .join(", ");
  const skipped = DATA.skipped.count
    ? ` ${DATA.skipped.count} results.json skipped, the first: ${DATA.skipped.first}.`
    : "";
  $("summary").textContent = `${runs.toLocaleString("en")} runs: ${parts}. Made ${DATA.made}.${skipped}`;
  $("footer").textContent =
    `Present code ${DATA.code}; runs made by other code are marked. The same tables: report.md, report.csv.`;
}

function listen() {
  let waiting = null;
  const soon = (action) => () => {
    clearTimeout(waiting);
    waiting = setTimeout(action, 120);
  };
  const anew = () => {
    view.page = 0;
    view.drawn = null;
    update();
  };
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("task").addEventListener("change", () => chooseTask($("task").value));
  for (const id of ["data-filter", "model", "status"]) $(id).addEventListener("change", anew);
  $("text").addEventListener("input", soon(anew));
  $("grouped").addEventListener("change", () => {
    view.grouped = $("grouped").checked;
    view.page = 0;
    update();
  });
  $("all-metrics").addEventListener("change", () => {
    view.allMetrics = $("all-metrics").checked;
    update();
  });
  $("curve-metric").addEventListener("change", () => {
    view.curve = $("curve-metric").value;
    drawCurves(view.task, view, view.visible);
  });
  $("curve-log").addEventListener("change", () => drawCurves(view.task, view, view.visible));
  $("curve-best").addEventListener("click", () => {
    view.drawn = null;
    drawCurves(view.task, view, view.visible);
  });
  $("curve-none").addEventListener("click", () => {
    view.drawn = new Set();
    drawCurves(view.task, view, view.visible);
  });
  for (const id of ["heat-rows", "heat-columns", "sweep-metric"])
    $(id).addEventListener("change", () => drawSweep(view.task, view.visible));
  for (const id of ["cost-x", "cost-y", "cost-log"])
    $(id).addEventListener("change", () => drawCost(view.task, view.visible));
  let width = window.innerWidth;
  window.addEventListener(
    "resize",
    soon(() => {
      if (window.innerWidth !== width) {
        width = window.innerWidth;
        drawCharts();
      }
    }),
  );
}

summary();
listen();
options(
  $("task"),
  DATA.tasks.map((task) => [task.name, task.name]),
  DATA.tasks[0].name,
);
chooseTask($("task").value);
