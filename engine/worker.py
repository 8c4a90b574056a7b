"""A further process of a run on several devices: takes the run from its stdin and takes part in it.

It writes nothing but its errors, which the first process shows where they matter; see `engine.distributed`.
"""

import logging
import os
import pickle
import sys
import threading
import warnings

from engine.errors import UserError, one_line
from engine.modes import load
from engine.resolvers import register


def main() -> None:
    """Runs the mode; ends at once when the first process is gone."""
    register()
    run = pickle.load(sys.stdin.buffer)
    threading.Thread(target=end_with_the_first, daemon=True).start()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        load(run.cfg.mode)(run)
    except UserError as error:
        print(one_line(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def end_with_the_first() -> None:
    """Waits for the end of stdin, which the first process holds open as long as it lives."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
