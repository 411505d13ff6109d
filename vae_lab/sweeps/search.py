"""Optuna's search (`hydra/sweeper=optuna`), made to survive: its trials are kept beside the runs, and counted."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

log = logging.getLogger("vae_lab")


def is_search(cfg: DictConfig) -> bool:
    """Whether Optuna chooses the points."""
    return "optuna" in cfg.hydra.sweeper._target_


def prepare_search(cfg: DictConfig, folder: Path) -> None:
    """Settings that the command line leaves open: the larger value is better, trials are kept in the sweep's folder."""
    asked = {text.partition("=")[0] for text in cfg.hydra.overrides.hydra}
    with open_dict(cfg.hydra):
        sweeper = cfg.hydra.sweeper
        if "hydra.sweeper.direction" not in asked:
            sweeper.direction = "maximize"
        if "hydra.sweeper.max_failure_rate" not in asked:
            sweeper.max_failure_rate = 1.0
        sweeper.storage = sweeper.storage or f"sqlite:///{(folder / 'search.db').resolve()}"
        sweeper.study_name = sweeper.study_name or folder.name
        sampler = sweeper.get("sampler")
        if sampler and sampler.get("seed") is not None:  # or a continued search would propose the first trials again
            sampler.seed += trials_so_far(sweeper.storage, sweeper.study_name)


def trials_so_far(storage: str, study_name: str) -> int:
    """Those of earlier calls, however they ended."""
    import optuna

    studies = {summary.study_name: summary for summary in optuna.get_all_study_summaries(storage)}
    return studies[study_name].n_trials if study_name in studies else 0


def is_finished(sweeper: Any, folder: Path) -> bool:
    """Takes the trials of earlier calls off `sweeper.n_trials`; says so where none is left.

    Those that a kill left running are asked for again: their runs are recognised and resumed.
    """
    import optuna

    study = optuna.create_study(
        study_name=sweeper.study_name,
        storage=sweeper.storage,
        direction=getattr(sweeper.direction, "name", sweeper.direction),  # a name, or the plugin's enumeration
        load_if_exists=True,
    )
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
    done = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)
    sweeper.n_trials = max(0, sweeper.n_trials - done)
    if sweeper.n_trials == 0:
        log.info("the search in %s is finished: a larger hydra.sweeper.n_trials goes on", folder)
    return sweeper.n_trials == 0
