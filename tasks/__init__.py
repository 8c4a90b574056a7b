"""One package per task (data, loss, metrics, figures, predict); data.py, task.py and sources.py hold what all of them share."""
