// Cost against quality.

const MOST_DOTS = 3000;

const COSTS = {
  seconds: "training seconds",
  memory: "peak memory (MB)",
  params: "parameters",
  flops: "FLOPs of a forward pass",
  energy: "energy",
};

// The runs that no other run beats at lower cost, from cheap to dear.
function front(points, lower) {
  let best = null;
  return [...points]
    .sort((a, b) => a.x - b.x || (lower ? a.y - b.y : b.y - a.y))
    .filter(({ y }) => {
      const better = best === null || (lower ? y < best : y > best);
      if (better) best = y;
      return better;
    });
}

function drawCost(task, runs) {
  const costs = Object.keys(COSTS).filter((name) => task.runs.some((run) => isNumber(run[name])));
  options(
    $("cost-x"),
    costs.map((name) => [name, COSTS[name]]),
    $("cost-x").value,
  );
  options(
    $("cost-y"),
    task.metrics.map((name, i) => [i, name]),
    $("cost-y").value,
  );
  const cost = $("cost-x").value,
    metric = Number($("cost-y").value),
    log = $("cost-log").checked;
  const usable = (run) => isNumber(run[cost]) && isNumber(run.metrics[metric]) && (!log || run[cost] > 0);
  const all = runs
    .filter((run) => run.status === "done" && usable(run))
    .map((run) => ({ run, x: run[cost], y: run.metrics[metric] }))
    .sort((a, b) => compare(a.y, b.y, !task.lower[metric]));
  const points = all.slice(0, MOST_DOTS);
  const sets = unique(points.map(({ run }) => run.data));
  $("cost-note").textContent = points.length
    ? `${all.length > MOST_DOTS ? `The best ${MOST_DOTS} of ${all.length}` : points.length} finished runs. ` +
      (sets.length > 1 ? "Choose one data set to compare them." : "The line joins the runs that nothing cheaper beats.")
    : "No finished run here states both.";
  if (!points.length) return $("cost-plot").replaceChildren();
  const { svg, axes } = frame($("cost-plot"), {
    x: {
      domain: extent(
        points.map(({ x }) => x),
        log,
      ),
      label: COSTS[cost],
      log,
    },
    y: { domain: extent(points.map(({ y }) => y)), label: task.metrics[metric] },
    label: `${COSTS[cost]} against ${task.metrics[metric]}`,
  });
  const at = ({ x, y }) => `${axes.x(x).toFixed(1)},${axes.y(y).toFixed(1)}`;
  if (sets.length === 1)
    svg.append(s("polyline", { class: "front", points: front(all, task.lower[metric]).map(at).join(" ") }));
  const models = unique(points.map(({ run }) => run.model));
  for (const point of points) {
    const text = `${point.run.name}\n${COSTS[cost]} ${format(point.x)}\n${task.metrics[metric]} ${format(point.y)}`;
    svg.append(
      s(
        "circle",
        { class: "dot", cx: axes.x(point.x), cy: axes.y(point.y), r: 4, fill: stroke(models.indexOf(point.run.model)) },
        s("title", {}, text),
      ),
    );
  }
  const key = (model, i) =>
    h(
      "span",
      {},
      s("svg", { width: 10, height: 10, "aria-hidden": "true" }, s("circle", { cx: 5, cy: 5, r: 4, fill: stroke(i) })),
      ` ${model}`,
    );
  $("cost-plot").append(h("p", { class: "key" }, ...models.map(key)));
}
