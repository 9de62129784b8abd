"""Whether a pipeline is worth its price on one's own data: compared, judged, measured, with what cannot be said."""

from __future__ import annotations

from moa_nb.evaluation.benchmarks.graded import Graded, flask, mt_bench
from moa_nb.evaluation.benchmarks.ratings import mt_mean, mt_table, mt_winrates
from moa_nb.evaluation.benchmarks.skills import flask_table
from moa_nb.evaluation.benchmarks.winrate import WinRate, lc_winrate, winrate, winrate_of
from moa_nb.evaluation.calibration.calibration import Calibration, calibrate
from moa_nb.evaluation.calibration.curves import apgr, apgr_interval, chance, cpt, curve, optimal
from moa_nb.evaluation.calibration.replay import Replay
from moa_nb.evaluation.compare import compare, estimate
from moa_nb.evaluation.evaluation import Evaluation
from moa_nb.evaluation.judges.judge_check import JudgeCheck, judge_check
from moa_nb.evaluation.metrics import metric_of
from moa_nb.evaluation.statistics import Interval, Paired, holm, interval, paired

__all__ = [
    "Calibration",
    "Evaluation",
    "Graded",
    "Interval",
    "JudgeCheck",
    "Paired",
    "Replay",
    "WinRate",
    "apgr",
    "apgr_interval",
    "calibrate",
    "chance",
    "compare",
    "cpt",
    "curve",
    "estimate",
    "flask",
    "flask_table",
    "holm",
    "interval",
    "judge_check",
    "lc_winrate",
    "metric_of",
    "mt_bench",
    "mt_mean",
    "mt_table",
    "mt_winrates",
    "optimal",
    "paired",
    "winrate",
    "winrate_of",
]
