"""The command `runner`: composes the config, checks it, and hands over to a mode.

Nothing heavy (torch, Lightning, pandas) is imported until the config is composed and checked.
"""

import os
import sys
from typing import Any

import hydra
from omegaconf import DictConfig

from engine import CONF
from engine.errors import UserError, one_line
from engine.resolvers import register
from engine.signals import interruptible
from hydra_plugins.runner import register_plugins


def job(cfg: DictConfig) -> Any:
    """One run: what Hydra calls with the composed config."""
    from engine.launch import launch

    register()  # a launcher may have started this process
    return launch(cfg)


def main() -> None:
    """Entry point.

    Exit code 0, 1 for an unfinished sweep, 2 for the user's mistakes, 3 for a diverged run, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        from engine.help import help_text

        print(help_text())
        return
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in arguments
    if traceback_wanted:
        os.environ["RUNNER_TRACEBACK"] = "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print, and we print one line
    register()
    register_plugins()
    try:
        with interruptible():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if traceback_wanted:
            raise
        from engine.explain import explain

        message = one_line(error) if isinstance(error, UserError) else explain(error, arguments)
        if message is None:  # not the user's mistake: ours
            raise
        if os.environ.get("RANK", "0") == "0":  # torchrun starts several of us
            print(f"runner: {message}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))


if __name__ == "__main__":
    main()
