"""mode=workspace: the W&B workspace of a task, defined in code: which panels, which metrics, grouped by sweep."""

import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError, one_line
from engine.run import Run
from engine.sync import check_server
from engine.trust import target_of

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

STEP = "trainer/global_step"
TEST_PANELS_PER_ROW = 4


def workspace(run: Run) -> None:
    """Saves the workspace of the config's task: as a new view of the project on the server, or as JSON in `output`.

    Raises:
        UserError: wandb-workspaces is missing, there is no account, or the server refuses.
    """
    if find_spec("wandb_workspaces") is None:
        raise UserError("mode=workspace needs wandb-workspaces: pip install wandb-workspaces")
    config = run.plain()
    settings = config["logger"].get("wandb") or {}
    project, entity = settings.get("project", "runner"), settings.get("entity")
    task, monitor = run.choices["task"], config["task"]["monitor"]
    logged = target_of(config["task"]).logged
    ascending = config["task"]["direction"] == "min"
    if run.cfg.output is not None:
        view = build(entity or "", project, task, monitor, logged, ascending)
        Path(str(run.cfg.output)).write_text(specification(view) + "\n")
        print(f"the workspace of {task}: {run.cfg.output}")
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    check_server()
    try:
        view = build(entity or wandb.Api().default_entity, project, task, monitor, logged, ascending).save()
    except Exception as error:  # wandb raises many kinds: no key, no network, no such project
        raise UserError(
            f"W&B: {one_line(error).rstrip('.')} (output=<file.json> writes the workspace without a server)"
        ) from error
    print(f"the workspace of {task}: {view.url}")


def build(
    entity: str, project: str, task: str, monitor: str, logged: Iterable[str], ascending: bool = True
) -> "Workspace":
    """The workspace of a task.

    Args:
        monitor: the metric by which runs are ordered; its curve comes first.
        logged: what the task's runs log: `val/...` curves, `test/...` bars, `figures/...` media.
        ascending: whether less of `monitor` is better.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    curves = [monitor, *(name for name in logged if name.startswith("val/") and name != monitor)]
    tests = [name for name in logged if name.startswith("test/")]
    media = [*(name for name in logged if name.startswith("figures/")), "figures/loss"]
    sections = [
        section("Validation", [curve(name) for name in curves]),
        section("Training", [curve("train/loss"), curve("lr")]),
        section("Test", [panels.BarPlot(title=name, metrics=[name]) for name in tests], TEST_PANELS_PER_ROW),
        section("Figures", [panels.MediaBrowser(title=name.partition("/")[2], media_keys=[name]) for name in media], 2),
    ]
    runs = ws.RunsetSettings(
        filters=f"Tags in ['{task}']",
        groupby=[expr.Metric("Group")],
        order=[expr.Ordering(expr.Summary(monitor), ascending=ascending)],
        pinned_columns=[f"summary:{name}" for name in (monitor, *tests)],
    )
    settings = ws.WorkspaceSettings(x_axis=STEP, max_runs=20)
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"runner {task}",
        sections=sections,
        settings=settings,
        runset_settings=runs,
    )


def section(name: str, content: list[Any], columns: int = 3) -> "Section":
    """An open section; rows as its panels need."""
    import wandb_workspaces.workspaces as ws

    layout = ws.SectionLayoutSettings(columns=columns, rows=max(1, -(-len(content) // columns)))
    return ws.Section(name=name, panels=content, is_open=True, layout_settings=layout)


def curve(metric: str) -> Any:
    """A metric over the training steps; runs of a sweep as mean and range."""
    import wandb_workspaces.reports.v2 as panels

    return panels.LinePlot(
        title=metric, x=STEP, y=[metric], groupby_aggfunc="mean", groupby_rangefunc="minmax", title_x="step"
    )


def specification(view: "Workspace") -> str:
    """The JSON that the server is sent."""
    return view._model.spec.model_dump_json(by_alias=True, exclude_none=True, indent=1)
