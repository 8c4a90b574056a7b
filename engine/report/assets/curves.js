// Learning curves of the runs that are chosen.

function drawCurves(task, view, runs) {
  const carrying = bestFirst(
    task,
    runs.filter((run) => run.curves),
  );
  const names = unique(carrying.flatMap((run) => Object.keys(run.curves)));
  const limit =
    DATA.curves.runs >= DATA.curves.most
      ? `, the best of every data set: ${DATA.curves.most} are embedded at most`
      : "";
  $("curves").classList.toggle("empty", !names.length);
  $("curves-note").textContent = names.length
    ? `${carrying.length} of ${runs.length} runs carry curves${limit}. ` +
      `At most ${DATA.curves.points} points a curve; metrics.csv holds all.`
    : "No run here has a metrics.csv.";
  options(
    $("curve-metric"),
    names.map((name) => [name, name]),
    view.curve,
  );
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
    const box = h("input", {
      type: "checkbox",
      checked: view.drawn.has(run),
      onchange: () => {
        if (box.checked) view.drawn.add(run);
        else view.drawn.delete(run);
        drawChosen(view, carrying);
      },
    });
    const swatch = s(
      "svg",
      { class: "swatch", width: 18, height: 10, "aria-hidden": "true" },
      s("line", { x1: 0, x2: 18, y1: 5, y2: 5 }),
    );
    run.swatch = swatch.firstChild;
    const seed = isNumber(run.seed) ? ` seed ${run.seed}` : "";
    return h(
      "label",
      { title: `${run.name} ${setUp(task, run)}` },
      box,
      swatch,
      h("span", {}, `${shortName(run)} · ${run.data}${seed}`),
    );
  });
  $("curve-picker").replaceChildren(...entries);
}

function drawChosen(view, carrying) {
  const chosen = carrying.filter((run) => view.drawn.has(run) && run.curves[view.curve]);
  carrying.forEach((run) => {
    run.swatch.style.cssText = "";
  });
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
      for (const [x, y] of points)
        svg.append(
          s(
            "circle",
            { cx: axes.x(x), cy: axes.y(y), r: 2.5, fill: stroke(i) },
            s("title", {}, `${run.name}: ${format(y)} at step ${x}`),
          ),
        );
    for (const [name, value] of Object.entries(paint)) if (value) run.swatch.style.setProperty(name, value);
  });
}
