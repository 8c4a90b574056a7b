"""The command line: help, completion, start-up, and one clear line for every mistake."""

import subprocess
import sys

import pytest
from command import ROOT, spawn
from omegaconf import OmegaConf

from engine.help import COMMANDS, GROUPS, description

CONF = ROOT / "conf"
HEAVY = ("torch", "lightning", "pandas", "numpy", "matplotlib", "wandb")


def refused(runner, tmp_path, *arguments: str) -> str:
    """The one line that these arguments get, with exit code 2 and nothing written."""
    outcome = runner(*arguments)
    assert outcome.code == 2, outcome
    assert list(tmp_path.iterdir()) == []
    assert outcome.line.startswith("runner: ")
    return outcome.line


def option_files(group: str) -> list:
    tasks = {path.stem for path in (CONF / "task").glob("*.yaml")} - ({"ts_forecast"} if group == "task" else set())
    return [p for p in (CONF / group).glob("*.yaml") if not p.stem.startswith("_") and p.stem not in tasks]


@pytest.mark.parametrize("group", [*GROUPS, "preset"])
def test_help_lists_every_option_with_its_own_line(runner, group):
    words = [" ".join(line.split()) for line in runner("--help").out.splitlines()]
    files = option_files(group)
    assert files
    for path in files:
        text = " ".join(description(path).split())
        assert text, f"{path} begins with no description"
        assert f"{path.stem} {text}" in words


def test_help_names_every_group_and_every_row_of_the_presets(runner):
    text = runner("-h").out
    groups = {str(p.relative_to(CONF)) for p in CONF.rglob("*") if p.is_dir()}
    shown = {g for g in groups if not g.startswith(("hydra", "preset/"))}
    assert all(f"\n{group}=" in text for group in shown - {"preset"})
    rows = [p.stem for p in (CONF / "preset").glob("*/*.yaml") if not p.stem.startswith("_")]
    assert all(f" {row}" in text for row in rows)


def test_help_shows_five_commands_that_compose(runner, tmp_path):
    text = runner("--help").out
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        assert command in text
        words = [word.split(",")[0] for word in command.split()[1:] if word != "-m"]
        outcome = runner(*words, "--cfg", "job")
        assert outcome.code == 0, outcome.err


def loaded_by(tmp_path, arguments: list[str], **environ: str) -> set[str]:
    """The heavy packages in sys.modules after the command."""
    code = (
        "import sys, atexit, runner\n"
        f"sys.argv = ['runner', *{arguments!r}]\n"
        f"atexit.register(lambda: print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules]))\n"
        "runner.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--help"], {}),
        (["--cfg", "job"], {}),
        (["preset=itransformer/etth1", "--cfg", "job", "--resolve"], {}),
        (["-sc", "query=bash"], {"COMP_LINE": "runner model=itr", "COMP_POINT": "16"}),
    ],
    ids=["help", "cfg", "cfg of a preset", "completion"],
)
def test_nothing_heavy_is_imported_by(tmp_path, arguments, environ):
    assert loaded_by(tmp_path, arguments, **environ) == set()


def test_a_mistake_in_the_command_is_told_before_anything_heavy_is_imported(tmp_path):
    code = (
        "import sys, runner\n"
        "sys.argv = ['runner', 'optim.lr=fast']\n"
        "try: runner.main()\n"
        f"except SystemExit as stop: print(stop.code, *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout.split() == ["2"]


def completions(tmp_path, line: str) -> list[str]:
    """What Hydra's bash function would be given for a command line."""
    environ = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    outcome = spawn(tmp_path, "-sc", "query=bash", **environ)
    assert outcome.code == 0, outcome.err
    return outcome.out.split()


def test_completion_finds_the_option_of_a_group(tmp_path):
    assert completions(tmp_path, "runner model=itr") == ["model=itransformer"]


def test_completion_finds_a_nested_key(tmp_path):
    assert [word.split("=")[0] for word in completions(tmp_path, "runner data.hor")] == ["data.horizon"]


def test_completion_finds_a_preset(tmp_path):
    assert completions(tmp_path, "runner preset=s_m") == ["preset=s_mamba"]


@pytest.mark.parametrize(
    ("argument", "wrong", "nearest"),
    [
        ("model=itransfomer", "model=itransfomer", "itransformer"),
        ("data=ett1", "data=ett1", "etth1"),
        ("model/mixer=attntion", "model/mixer=attntion", "attention"),
        ("optim/schedule=cosin", "optim/schedule=cosin", "cosine"),
        ("hydra/launcher=bsic", "hydra/launcher=bsic", "basic"),
        ("modle=linear", "modle", "model"),
        ("model/mixr=attention", "model/mixr", "model/mixer"),
        ("optm.lr=1", "optm.lr", "optim.lr"),
        ("sed=1", "sed", "seed"),
        ("model.d_modle=3", "model.d_modle", "model.d_model"),
        ("model.mixer.drpout=3", "model.mixer.drpout", "model.mixer"),
        ("+model.d_modle.x=3", "model.d_modle", ""),
        ("~model.d_modle", "model.d_modle", "model.d_model"),
        ("mode=fti", "mode=fti", "fit"),
        ("preset=itransfomer", "preset=itransfomer", "itransformer"),
        ("preset=itransformer/etth", "preset=itransformer/etth", "itransformer/etth1"),
        ("task=ts_forcast", "task=ts_forcast", "ts_forecast"),
        ("model=3", "model=3", "itransformer"),
        ("+sed=1", "+sed", "seed"),
    ],
)
def test_a_mistyped_name_gets_the_nearest_valid_one(runner, tmp_path, argument, wrong, nearest):
    line = refused(runner, tmp_path, argument)
    assert wrong in line
    after = line.partition(wrong)[2]
    assert nearest in after


def test_several_options_where_one_is_wanted_are_answered_with_the_sweep(runner, tmp_path):
    line = refused(runner, tmp_path, "model=[linear,dlinear]")
    assert line.endswith("-m model=linear,dlinear")


def test_a_key_of_another_model_is_looked_up_among_the_chosen_models_keys(runner, tmp_path):
    line = refused(runner, tmp_path, "model=dlinear", "model.moving_avrage=3")
    assert "did you mean model.moving_average" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=uea"], "BasicMotions is data of task=ts_classification, not of ts_forecast"),
        (["task=ts_classification", "preset=itransformer"], "etth1 is data of task=ts_forecast"),
        (["model=vsformer"], "this model asks for data.length, which nyc_weather lacks"),
        (["task=ts_classification", "data=uea", "data.name=BasicMotion"], "did you mean BasicMotions"),
    ],
)
def test_data_and_models_of_another_task_are_refused(runner, tmp_path, arguments, words):
    assert words in refused(runner, tmp_path, *arguments)


def test_a_mistyped_key_in_a_sweep_gets_one_line_too(runner, tmp_path):
    outcome = runner("-m", "optm.lr=1,2")
    assert outcome.code == 2 and "did you mean optim.lr" in outcome.line
    assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("model.depth=two", "a whole number, like 2"),
        ("model.depth=1.5", "a whole number"),
        ("data.horizon=true", "a whole number"),
        ("optim.lr=fast", "a number"),
        ("optim.lr=[1,2]", "a number"),
        ("model.use_norm=3", "true or false"),
        ("debug=maybe", "true or false"),
        ("data.split=3", "a list"),
        ("optim.betas=x", "a list"),
        ("task.loss=[mse]", "one value"),
        ("data.source=x", "a mapping"),
        ("seed=x", "a whole number"),
        ("seed=null", "a whole number"),
        ("data.root=[a]", "one path"),
    ],
)
def test_a_value_of_the_wrong_type_gets_the_right_one(runner, tmp_path, argument, expected):
    line = refused(runner, tmp_path, argument)
    assert argument.split("=")[0] in line and f"expected {expected}" in line


def test_a_whole_number_will_do_for_a_fraction(runner):
    outcome = runner("mode=describe", "model=linear", "optim.lr=1")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("argument", ["data.columns=[a", "model=", "=3", "model.depth=a:b:{", "justaword"])
def test_an_override_that_cannot_be_read_is_named(runner, tmp_path, argument):
    assert argument.strip("=") in refused(runner, tmp_path, argument)


@pytest.mark.parametrize("missing", ["ckpt", "input", "output"])
def test_a_missing_argument_of_predict_is_named(runner, tmp_path, missing):
    given = [f"{key}=x" for key in ("ckpt", "input", "output") if key != missing]
    assert f"{missing}=" in refused(runner, tmp_path, "mode=predict", *given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.heads=7"], ["d_model=128", "heads=7"]),
        (["model.dropout=1.5"], ["dropout=1.5"]),
        (["task.loss=msee"], ["task.loss='msee'", "mse", "mae", "huber"]),
        (["task.train_variates=1.5"], ["task.train_variates=1.5", "(0, 1]"]),
        (["task.direction=up"], ["task.direction='up'", "min", "max"]),
        (["data.batch_size=0"], ["data.batch_size=0"]),
        (["data.missing=guess"], ["data.missing='guess'", "ffill"]),
        (["data.split=[0.5,0.5]"], ["data.split"]),
        (["data.lookback=5000", "data.season=1"], ["data.lookback=5000", "shorten"]),
        (["data.path=nowhere.csv"], ["nowhere.csv", "does not exist"]),
        (["data.columns=[lood]"], ["lood", "load"]),
        (["kernel.attention=fast"], ["fast", "reference"]),
        (["optim.lr=-1"], ["-1"]),
        (["trainer.precision=17"], ["17"]),
        (["trainer.max_epochs=-5"], ["max_epochs", "-5"]),
        (["trainer.accelerator=tpux"], ["tpux"]),
    ],
)
def test_a_wrong_value_is_told_in_one_line(runner, tmp_path, tiny, arguments, words):
    base = [a for a in tiny if a.split("=")[0] not in {b.split("=")[0] for b in arguments}]
    line = refused(runner, tmp_path, *[a for a in base if not a.startswith("model.")], *arguments)
    assert all(word in line for word in words), line


def test_a_target_outside_the_project_is_refused(runner, tmp_path):
    line = refused(runner, tmp_path, "model._target_=os.system", "logger=none")
    assert "os.system" in line and "not trusted" in line


@pytest.mark.parametrize("how", ["HYDRA_FULL_ERROR", "debug"])
def test_a_traceback_is_shown_where_one_asks_for_it(tmp_path, how):
    asked = {"HYDRA_FULL_ERROR": "1"} if how == "HYDRA_FULL_ERROR" else {}
    outcome = spawn(tmp_path, "mode=fti", *(["debug=true"] if how == "debug" else []), **asked)
    assert outcome.code != 0
    assert "Traceback (most recent call last)" in outcome.err
    assert "mode=fti is not a mode" in outcome.err


def test_the_process_ends_with_exit_code_2_and_one_line(tmp_path):
    outcome = spawn(tmp_path, "model=itransfomer")
    assert outcome.code == 2 and outcome.out == ""
    assert (
        outcome.line
        == "runner: model=itransfomer: no such option; did you mean itransformer or transformer or series_transformer?"
    )


def test_cfg_job_prints_a_config_that_names_every_promised_key(runner):
    cfg = OmegaConf.create(runner("--cfg", "job").out)
    numbers = "data.lookback data.horizon data.batch_size model.d_model model.depth model.heads optim.lr"
    for key in numbers.split():
        assert OmegaConf.select(cfg, key) is not None, key
    keys = "data.root data.path trainer.max_epochs trainer.max_steps model.mixer seed mode ckpt input output debug"
    for key in keys.split():
        parent, _, name = key.rpartition(".")
        assert name in (OmegaConf.select(cfg, parent) if parent else cfg), key
