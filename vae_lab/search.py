"""Optuna's search (`hydra/sweeper=optuna`), made to survive: its trials are kept beside the runs, and counted."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict


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


def remaining_trials(sweeper: Any) -> int:
    """Sets and returns how many trials are still to be made.

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
    return sweeper.n_trials
