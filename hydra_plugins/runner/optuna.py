"""hydra/sweeper=optuna: a search by Optuna whose trials are kept in SQLite, so that it goes on after a stop.

Values are given as to any Hydra sweep: `optim.lr=tag(log,interval(1e-4,1e-1))`, `model.depth=range(1,5)`, `model=a,b`.
hydra-optuna-sweeper, which does this elsewhere, needs an Optuna older than 3 (2022).
"""

import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from engine.errors import UserError
from engine.fingerprint import IGNORED, digest
from engine.lock import Held, RunLock
from engine.packages import need_plugins
from engine.run import log
from engine.sweep import Ledger

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

SAMPLERS = ("tpe", "random")


class OptunaSweeper(Sweeper):
    """Asks Optuna for overrides and tells it the jobs' metric.

    Args:
        n_trials: trials wanted in all; those of earlier calls count.
        n_jobs: trials launched together.
        direction: `min` or `max`.
        sampler: one of SAMPLERS.
        seed: of the sampler.
        params: more of the space, as `key: value`.
    """

    def __init__(
        self, n_trials: int, n_jobs: int, direction: str, sampler: str, seed: int, params: Mapping[str, Any] | None
    ):
        self.n_trials, self.n_jobs, self.direction = n_trials, n_jobs, direction
        self.sampler, self.seed, self.params = sampler, seed, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        need_plugins(config)
        for name, number in {"n_trials": self.n_trials, "n_jobs": self.n_jobs}.items():
            if not isinstance(number, int) or number < 1:
                raise UserError(f"hydra.sweeper.{name}={number}: expected a whole number, 1 or more")
        if self.sampler not in SAMPLERS:
            raise UserError(f"hydra.sweeper.sampler={self.sampler}: choose from {', '.join(SAMPLERS)}")
        self.config, self.context = config, hydra_context
        launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)
        self.ledger = Ledger(launcher, hydra_context, config, failures_count=False)

    def sweep(self, arguments: list[str]) -> None:
        """Runs the trials that are missing, and prints the best of all."""
        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        fixed, space = split(parser.parse_overrides(given))
        name = digest(sorted(a for a in given if a.split("=")[0].split(".")[0] not in IGNORED))
        folder = Path(str(self.config.hydra.sweep.dir)) / f"search-{name}"
        with alone_in(folder), self.ledger:
            study = self.open_study(folder / "trials.db", name)
            self.search(study, fixed, space)
            self.tell_best(study, folder)

    def open_study(self, path: Path, name: str) -> "Study":
        """The study of this search; trials that a stop left unfinished are asked first."""
        import optuna
        from optuna.trial import TrialState

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = {"min": "minimize", "max": "maximize"}[self.direction]
        study = optuna.create_study(
            storage=f"sqlite:///{path.resolve()}", study_name=name, direction=direction, load_if_exists=True
        )
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            study.set_user_attr(f"stopped {trial.number}", True)
            study.enqueue_trial(trial.params)
        seed = self.seed + len(study.trials)  # the trials to come are not to repeat the first ones
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        study.sampler = samplers[self.sampler](seed=seed)
        return study

    def search(self, study: "Study", fixed: list[str], space: dict[str, "BaseDistribution"]) -> None:
        """Batch after batch; a trial whose job did not come to its end stays open for the next call."""
        from optuna.trial import TrialState

        before = finished_trials(study)
        log.info(f"{before} of {self.n_trials} trials are finished")
        for start in range(before, self.n_trials, self.n_jobs):
            trials = [study.ask(space) for _ in range(min(self.n_jobs, self.n_trials - start))]
            batch = [fixed + [f"{key}={value}" for key, value in trial.params.items()] for trial in trials]
            returned = self.ledger.launch(batch, start)
            for trial, job, value in zip(trials, self.ledger.jobs[-len(batch) :], returned, strict=True):
                trial.set_user_attr("directory", str(job.dir))
                if value.return_value is not None:
                    study.tell(trial, value.return_value)
                elif job.outcome() == "failed":
                    study.tell(trial, state=TrialState.FAIL)
                elif job.outcome() in ("done", "resumed", "skipped"):
                    raise UserError(f"{job.dir} has no validation score to search by: give the data a validation part")

    def tell_best(self, study: "Study", folder: Path) -> None:
        """The best trial, on one line and in best.json."""
        from optuna.trial import TrialState

        done = study.get_trials(states=(TrialState.COMPLETE,))
        if not done:
            return
        best = study.best_trial
        found = {"value": best.value, "overrides": [f"{k}={v}" for k, v in best.params.items()], **best.user_attrs}
        (folder / "best.json").write_text(json.dumps(found, indent=1) + "\n")
        print(f"best of {len(done)} trials: {best.value:.4g} with {' '.join(found['overrides'])}")


def split(overrides: list[Override]) -> tuple[list[str], dict[str, "BaseDistribution"]]:
    """(overrides of one value, the space of the others)."""
    space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
    if not space:
        raise UserError(
            "hydra/sweeper=optuna: nothing to search; give a key several values: optim.lr=interval(1e-4,1e-2)"
        )
    fixed = [f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in overrides if not o.is_sweep_override()]
    return fixed, space


def distribution(override: Override) -> "BaseDistribution":
    """Optuna's name for a sweep: interval, range, or choices (as the strings that the jobs are given)."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if override.is_interval_sweep():
        kind = IntDistribution if isinstance(value.start, int) and isinstance(value.end, int) else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if override.is_range_sweep() and not value.shuffle:
        values = list(value.range())
        kind = IntDistribution if all(isinstance(v, int) for v in values) else FloatDistribution
        return kind(values[0], values[-1], step=value.step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def finished_trials(study: "Study") -> int:
    """Trials that count: those that a stop left unfinished were asked for again."""
    stopped = {int(key.split()[1]) for key in study.user_attrs if key.startswith("stopped ")}
    return sum(trial.state.is_finished() and trial.number not in stopped for trial in study.trials)


@contextmanager
def alone_in(folder: Path) -> Any:
    """The search's folder, for this process alone."""
    try:
        with RunLock(folder):
            yield
    except Held as held:
        raise UserError(
            f"{folder}: {held} goes on with this search; hydra.sweeper.n_jobs= runs trials together"
        ) from None
