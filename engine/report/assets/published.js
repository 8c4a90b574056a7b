// Ours beside published.

const FEW = 20;

function drawPublished(task, isVisible, most = FEW) {
  const rows = task.published.filter((row) =>
    task.groups[row.group].members.some((member) => isVisible(task.runs[member])),
  );
  $("published-note").textContent = rows.length
    ? "Mean ± standard deviation over n seeds; the difference is ours against the paper's."
    : "No finished run here has a published figure: presets state them.";
  const names = ["model", "data", "preset", "set-up", "metric", "ours", "n", "published", "difference", "source"];
  const numbers = new Set(["ours", "n", "published", "difference"]);
  const head = h(
    "tr",
    {},
    ...names.map((name) => h("th", { scope: "col", class: numbers.has(name) ? "number" : null }, name)),
  );
  const body = rows.slice(0, most).map((row) => {
    const runs = counted(task, task.groups[row.group]);
    const run = runs[0];
    const ours = format(row.ours) + (isNumber(row.std) ? ` ± ${row.std.toPrecision(2)}` : "");
    const source = h("td", { class: "source" }, ...badges(runs).flatMap((one) => [one, " "]), row.source || "");
    const cells = [run.model, run.data, run.preset || "", setUpCell(task, run), row.metric];
    const values = [ours, row.n, format(row.published), percent(row.difference)];
    return h(
      "tr",
      {},
      ...cells.map((cell) => h("td", {}, cell)),
      ...values.map((v) => h("td", { class: "number" }, String(v))),
      source,
    );
  });
  const all = () => drawPublished(task, isVisible, rows.length);
  const more = h("button", { type: "button", onclick: all }, `Show all ${rows.length} rows`);
  $("published-table").replaceChildren(
    ...(rows.length ? [h("table", {}, h("thead", {}, head), h("tbody", {}, ...body))] : []),
  );
  $("published-more").replaceChildren(...(rows.length > most ? [more] : []));
}
