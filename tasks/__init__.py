"""One package per task; data.py, task.py and sources.py hold what all of them share."""
