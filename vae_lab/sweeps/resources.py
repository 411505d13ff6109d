"""What a launcher's config says about the machine: jobs at once, threads of a job, who places the jobs."""

from omegaconf import DictConfig

from vae_lab.runs.provenance import available_cores


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
