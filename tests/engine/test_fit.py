"""mode=fit on a small series: what the run directory holds, and that its numbers are right."""

import csv

import matplotlib.image
import numpy as np
import pytest
import torch

CONTRACT = {
    "metrics",
    "published",
    "paper",
    "params",
    "flops",
    "seconds",
    "peak_memory_mb",
    "fingerprint",
    "versions",
    "status",
}


def test_run_directory_holds_what_the_design_names(fitted):
    names = {path.name for path in fitted.dir.iterdir()}
    assert names == {"config.yaml", "results.json", "metrics.csv", "run.log", "figures", "best.ckpt", "last.ckpt"}


def test_results_hold_every_name_of_the_contract(fitted):
    assert fitted.results.keys() >= CONTRACT
    assert fitted.results["status"] == "done"
    assert fitted.results["steps"] == 3
    assert fitted.results["paper"] is None and fitted.results["published"] is None
    assert fitted.dir.name == f"itransformer-{fitted.results['fingerprint']}"
    assert {"python", "torch", "lightning", "runner", "code"} <= fitted.results["versions"].keys()
