"""What a launcher's config says about the machine: jobs at once, threads of a job, who places the jobs."""

from omegaconf import DictConfig

from vae_lab.runs.provenance import available_cores
from vae_lab.training.sharing import check_runs_per_process


def threads_of_a_job(cfg: DictConfig) -> int:
    """`threads`, else what the launcher reserves for a job, else the cores divided among the jobs at once."""
    launcher = cfg.hydra.launcher
    remote = launcher.ray.remote.get("num_cpus") if "ray" in launcher else None
    asked = cfg.threads or remote or launcher.get("cpus_per_task") or available_cores() // parallel_jobs(cfg)
    return max(1, int(asked))


def parallel_jobs(cfg: DictConfig) -> int:
    """Jobs that the launcher has running at once, as far as its config says; as many as there is room for if not."""
    launcher = cfg.hydra.launcher
    if launcher._target_.endswith("BasicLauncher"):
        return 1
    if "n_jobs" not in launcher:
        return available_cores()
    count = launcher.n_jobs
    return count if count > 0 else max(1, available_cores() + 1 + count)


def places(cfg: DictConfig) -> int | None:
    """Jobs that may run at once on this machine, however many the launcher starts; None: a cluster places them."""
    launcher = cfg.hydra.launcher
    if launcher._target_.endswith("SlurmLauncher") or "ray" in launcher:
        return None
    return max(1, available_cores() // threads_of_a_job(cfg))


def runs_per_process(cfg: DictConfig) -> int:
    """Runs that share a process, and in it a GPU.

    Raises:
        ConfigError: it is no whole number from 1 to `MOST`.
    """
    check_runs_per_process("sweep.runs_per_process", cfg.sweep.runs_per_process)
    return cfg.sweep.runs_per_process
