// What a row of the leaderboard opens to.

function detailRow(task, row, width) {
  const runs = row.group ? row.members : [row.run];
  return h("tr", { class: "details" }, h("td", { colspan: width }, ...runs.map((run) => details(task, run))));
}

// Files, overrides, error, baselines and thumbnails of one run, made when asked for.
function details(task, run) {
  const link = (name) => h("a", { href: `${run.url}/${name}` }, name);
  const files = ["config.yaml", "results.json", "metrics.csv", "run.log"].flatMap((name) => [link(name), " "]);
  const baselines = Object.entries(run.baselines || {}).map(([name, values]) => {
    const scores = task.metrics.map((metric, i) => [metric, values[i]]).filter(([, value]) => isNumber(value));
    return h(
      "p",
      {},
      `${name.replaceAll("_", " ")}: `,
      scores
        .slice(0, task.main)
        .map(([m, v]) => `${m} ${format(v)}`)
        .join(", "),
    );
  });
  const figures = (run.figures || []).map((name) => {
    const image = h("img", {
      src: `${run.url}/${name}`,
      alt: `${name} of ${run.name}`,
      loading: "lazy",
      onerror: () => image.closest("a").remove(),
    });
    return h("a", { href: `${run.url}/${name}` }, image);
  });
  return h(
    "div",
    { class: "run-details" },
    h("p", {}, h("strong", {}, run.name), isNumber(run.seed) ? `, seed ${run.seed}: ` : ": ", ...files),
    run.overrides ? h("p", {}, h("code", {}, run.overrides)) : null,
    run.source && run.published ? h("p", {}, `published: ${run.source}`) : null,
    run.error ? h("p", { class: "error" }, run.error) : null,
    ...baselines,
    h("div", { class: "figures" }, ...figures),
  );
}
