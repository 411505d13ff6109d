"""The commands as calls from Python and notebooks: the same configs, files and bits; mistakes are exceptions.

`import vae_lab` has them; a run's methods are the short forms of those that work on arrays. A key that is None has the
value that the command gives it. A call leaves the process as it was.
"""

import base64
import html
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae_lab.applications import encoding, scoring
from vae_lab.applications.blocks import blocks_of
from vae_lab.applications.inpainting import mask_of_array
from vae_lab.commands.classify import ClassifySettings, require_labels, table_of
from vae_lab.commands.images import require_encoder
from vae_lab.commands.in_process import as_a_command, as_it_was, call, config_of
from vae_lab.commands.inpaint import ChainSettings, inpainted, measured_of, pictures_of
from vae_lab.commands.plot import picture_of
from vae_lab.commands.run_settings import use_backend_of
from vae_lab.commands.runs import folders_of
from vae_lab.commands.sample import DrawSettings, drawn
from vae_lab.commands.score import MeasureSettings
from vae_lab.commands.tracking import tracked
from vae_lab.errors import ConfigError, require_choice, require_integer, require_memory
from vae_lab.figures.canvas import encoded
from vae_lab.figures.run_pictures import PICTURES, CannotDrawError
from vae_lab.reports.listing.runs import Runs
from vae_lab.reports.overview import find_runs
from vae_lab.runs import load
from vae_lab.runs.directory import LATEST, RunDir, named_runs
from vae_lab.runs.result import results
from vae_lab.wiring import build
from vae_lab.wiring.build import Settings, foreign_packages
from vae_lab.wiring.dotted import value_at

BYTES = 256
"""What data that are stored as bytes are divided by at most: Frey Face by this, others by 255."""


class Posterior(NamedTuple):
    """q(z|x) = N(mean, diag(std^2)) of images."""

    mean: Any
    """[n, latent]."""
    std: Any
    kl_per_dimension: Any
    """KL(q(z|x) || p(z)) in nats, [n, latent]."""
    kl: Any
    """Their sum, [n]."""


class Sampled(NamedTuple):
    """Images, and the z that they were decoded from."""

    x: Any
    """[n, channel, height, width]."""
    z: Any
    """[n, latent]."""


class Inpaintings(NamedTuple):
    """Draws of what is missing of n images, and how the chains went."""

    missing: Any
    """The pixels that are missing, [height, width]."""
    draws: Any
    """Whole images, one from the end of each chain, [n, num, channel, height, width]."""
    means: Any
    """The same with E[x_missing|z] at the z of each draw."""
    mean: Any
    """The same with E[x_missing|x_observed], [n, channel, height, width]."""
    acceptance: Any
    """The share of proposals z' ~ q(z|x) that were accepted, [n], as all that follows."""
    hmc_acceptance: Any
    effective_sample_size: Any
    """That of the chains' states, by the dimension of z that mixes worst."""
    log_conditional: Any
    """log p(x_missing|x_observed) of the true pixels, in nats."""
    standard_error: Any
    k_hat: Any
    """Pareto k-hat of log_conditional's weights: above 0.7 it is not to be trusted."""


class Run(load.Run):
    """A trained model with all that is known about it, as `train` and `load_run` return it.

    Images go in as NumPy or torch, [n, channel, height, width] or, of one channel, [n, height, width]: floating point
    in [0, 1], or uint8, which is divided by what the run's own data are: by 255 for MNIST, by 16 for the digits. What
    comes out is of the same kind.
    """

    @property
    def history(self) -> pd.DataFrame:
        """The bound curve: a row for each evaluation."""
        return pd.DataFrame(self.curve)

    @property
    def ledger(self) -> dict[str, Any]:
        """What has been measured of these weights by now, in nats per datapoint: `run.ledger["test/bound"]`."""
        return RunDir(self.path).ledger(self.checkpoint, self.samples)

    def encode(self, x: Any) -> Any:
        """The posterior means E_q[z|x], [n, latent]; `vae_lab.encode` has all of q(z|x)."""
        require_encoder(self, "encode")
        return _like(encoding.encode(self.model, images_of(self, x)).mean, x)

    def decode(self, z: Any) -> Any:
        """The likelihood's means E[x|z], [n, channel, height, width], at z: [n, latent]."""
        latents = _tensor(z, "z")
        expected = f"[n, {self.model.latent_dim}]"
        if latents.ndim != 2 or latents.shape[1] != self.model.latent_dim or not len(latents):
            raise ConfigError(f"z must have the shape {expected}, got {list(latents.shape)}")
        latents = latents.to(next(self.model.parameters()))
        return _like(torch.cat([super(Run, self).decode(latents[block]) for block in blocks_of(len(latents))]), z)

    def sample(self, num_samples: int, seed: int = 0, *, as_numpy: bool = False) -> Any:
        """Decoder means at draws z ~ N(0, I), [n, channel, height, width]; `vae_lab.sample` has further ways."""
        require_integer("num_samples", num_samples, minimum=1)
        images = super().sample(num_samples, seed)
        return images.numpy() if as_numpy else images

    def score(self, x: Any, **keys: Any) -> pd.DataFrame:
        """`vae_lab.score` of this run."""
        return score(self, x, **keys)

    def plot(
        self,
        picture: str,
        *,
        seed: int = 0,
        dark_on_white: bool | None = None,
        interpolate: Sequence[int] | None = None,
    ) -> Figure:
        """A picture of `vae-lab plot`, which a notebook shows; nothing is written.

        Args:
            picture: bound_curve, samples, reconstructions, manifold, latent_scatter, posteriors, traversals or
                interpolations.
            seed: of the samples.
            dark_on_white: shows 1 - x; None: for the data sets that the paper shows so.
            interpolate: the ends of the interpolations: test images in pairs.
        """
        require_choice("picture", picture, PICTURES)
        try:
            return picture_of(self, picture, seed, dark_on_white=dark_on_white, ends=interpolate)
        except CannotDrawError as error:
            raise ConfigError(f"{picture} cannot be drawn: {error}") from error

    def __repr__(self) -> str:
        ledger, record = self.ledger, self.record
        shape = " x ".join(map(str, record["image_shape"]))
        encoder, decoder, objective, optimizer = (
            str(value_at(self.config, f"{part}._target_")).rpartition(".")[2]
            for part in ("model.encoder", "model.decoder", "objective", "optimizer")
        )
        lines = [
            f"Run {self.path}: {record['status']}, {self.checkpoint}.ckpt at {self.samples:,} samples",
            f"data: {ledger.get('data')}, {shape}, {ledger.get('scale')}, likelihood {ledger.get('likelihood')}",
            f"model: {self.model.latent_dim} latent dimensions, {encoder}, {decoder}",
            f"trained by: {objective}, {optimizer}, seed {self.config['seed']}",
            f"measured: {', '.join(map(str, results(ledger))) or 'nothing yet'}",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [f"<pre>{html.escape(repr(self))}</pre>"]
        for picture in ("bound_curve", "samples"):
            try:
                content = encoded(self.plot(picture))
            except ConfigError:  # a run without such a picture
                continue
            kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
            data = base64.b64encode(content).decode()
            parts.append(f'<img alt="{picture}" style="max-height: 20em" src="data:image/{kind};base64,{data}">')
        return "".join(parts)


def images_of(run: load.Run, x: Any) -> Tensor:
    """Images as the run's model takes them.

    Raises:
        ConfigError: their type, shape or range is another one.
    """
    images, shape = _tensor(x, "x"), tuple(run.model.image_shape)
    wanted = f"[n, {', '.join(map(str, shape))}]"
    if shape[0] == 1:
        wanted += f" or [n, {shape[1]}, {shape[2]}]"
        images = images[:, None] if images.shape[1:] == shape[1:] else images
    if images.ndim != 4 or tuple(images.shape[1:]) != shape or not len(images):
        raise ConfigError(f"x must have the shape {wanted}, got {list(x.shape)}")
    if images.dtype == torch.uint8:
        images = _divided(run, images)
    if not images.is_floating_point():
        raise ConfigError(f"x must be floating point in [0, 1] or uint8, got {images.dtype}")
    least, most = float(images.min()), float(images.max())
    if not (least >= 0 and most <= 1):  # NaN is neither
        raise ConfigError(f"x must have values in [0, 1], got {least:.3g} ... {most:.3g}: divide it by its largest")
    return images.to(next(run.model.parameters()))


def _divided(run: load.Run, images: Tensor) -> Tensor:
    """Bytes on the scale of the run's own data."""
    divisor, most = run.data.divisor, int(images.max())
    reason = f"the data of {run.path} are {run.data.scale}"
    if divisor > BYTES:
        raise ConfigError(f"x must be floating point in [0, 1], got torch.uint8: {reason}, and no bytes")
    if most > divisor:
        rule = f"x must have values in 0 ... {divisor} where it is uint8"
        raise ConfigError(f"{rule}, got {most}: {reason}; make it floating point in [0, 1]")
    return images.float() / divisor


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(values))
    raise ConfigError(f"{name} must be a NumPy array or a torch tensor, got {type(values).__name__}")


def _like(result: Tensor, given: Any) -> Any:
    """NumPy where NumPy was given, else on the device of what was given."""
    return result.to(given.device) if isinstance(given, Tensor) else result.cpu().numpy()


def load_run(
    path: str | Path,
    *,
    allow: Sequence[str] = (),
    checkpoint: str | int | None = None,
    data_root: str | None = None,
) -> Run:
    """Loads a run directory, which may be a stranger's: no code of it is executed.

    Args:
        path: the run directory, or `latest`.
        allow: packages whose classes its config may name besides vae_lab's components and the frameworks'.
        checkpoint: `best`, `last` or the count of a snapshot; None: best where there is one.
        data_root: where the data set, file or folder of pictures lies now, if not where the run found it.

    Raises:
        UntrustedTarget: its config names other code.
        RunError: it is no run directory or has no checkpoint.
    """
    if path == LATEST:
        path = named_runs(LATEST)[0].path
    with as_it_was():  # a model is made with random weights before it gets the run's
        return Run(**vars(load.load_run(path, allow=allow, checkpoint=checkpoint, data_root=data_root)))


def train(experiment: str | None = None, overrides: Mapping[str, Any] | None = None) -> Run:
    """`vae-lab train experiment=EXPERIMENT KEY=VALUE ...`: trains a new run, or continues one, and loads it.

    Args:
        experiment: a choice of that name; None: the defaults.
        overrides: values of keys, and choices of groups: {"data": "mnist", "model.latent_dim": 2, "run_dir": "runs/a"}.

    Raises:
        ConfigError: the config is refused; nothing was written.
        NonFiniteDensity: the training diverged; the run's status is `failed`.
        KeyboardInterrupt: a signal stopped it; the same call with `run_dir` continues.
    """
    words = {} if experiment is None else {"experiment": experiment}
    (path,) = call("train", {**words, **(overrides or {})})
    return load_run(path, allow=foreign_packages(RunDir(path).read_config()))


def evaluate(run: Run | str | Path, *, overrides: Mapping[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    """`vae-lab evaluate run=RUN KEY=VALUE ...`: measures a run in nats, prints the table, and returns the ledger.

    Args:
        run: a run, or its directory.
        overrides: values of keys, dots and all: {"estimator.num_samples": 5000}.
        keys: those without a dot: num_samples=8, splits=["val", "test"].
    """
    loaded = _loaded(run)
    call("evaluate", {**_naming(loaded), **keys, **(overrides or {})})
    return RunDir(loaded.path).ledger(loaded.checkpoint)


def encode(run: Run | str | Path, x: Any) -> Posterior:
    """`vae-lab encode run=RUN`: q(z|x) of images.

    Args:
        run: a run, or its directory.
        x: images, as `Run` takes them.

    Raises:
        NoEncoder: the run trained none.
    """
    with at_work(run) as loaded:
        require_encoder(loaded, "encode")
        found = encoding.encode(loaded.model, images_of(loaded, x), watch=tracked("encoding"))
    return Posterior(*(_like(part, x) for part in (found.mean, found.std, found.kl_per_dimension, found.kl)))


def sample(
    run: Run | str | Path,
    num: int | None = None,
    *,
    draw: str | None = None,
    source: str | None = None,
    components: int | None = None,
    seed: int | None = None,
    as_numpy: bool = False,
) -> Sampled:
    """`vae-lab sample run=RUN`: images at draws of z.

    Args:
        run: a run, or its directory.
        num: images.
        draw: `mean` of p(x|z), or `pixels`: a draw of it.
        source: of z, the key `from`: `prior`, or `aggregate`: a Gaussian mixture fitted to q(z|x) of training images.
        components: of that mixture; None: chosen by BIC.
        seed: of all draws.
        as_numpy: whether NumPy comes out, else torch.
    """
    with at_work(run) as loaded:
        keys = {"num": num, "draw": draw, "from": source, "components": components, "seed": seed}
        settings = _settings(DrawSettings, "sample", loaded, keys)
        settings.require_source(loaded)
        size = 8 * settings.num * math.prod(loaded.model.image_shape)
        require_memory(f"num={settings.num}", size, "let vae-lab sample write an .npz file")
        images, z = drawn(loaded, settings)
        found = torch.cat(list(images)), z.cpu()
    return Sampled(*(part.numpy() if as_numpy else part for part in found))


def score(
    run: Run | str | Path,
    x: Any,
    *,
    estimator: str | None = None,
    num_samples: int | None = None,
    seed: int | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """`vae-lab score run=RUN`: a row for each image, with log p(x), its standard error, bound and its terms, in nats.

    Args:
        run: a run, or its directory.
        x: images, as `Run` takes them.
        estimator: of log p(x), by its name.
        num_samples: draws of z for the bound.
        seed: of the noise.
        settings: keys of the estimator.
    """
    with at_work(run) as loaded:
        keys = {"estimator": estimator, "num_samples": num_samples, "seed": seed}
        keys |= {f"estimator.{name}": value for name, value in settings.items()}
        how = _settings(MeasureSettings, "score", loaded, keys)
        chosen = how.made()
        how.require_fit(chosen, loaded)
        images, noise = images_of(loaded, x), {"num_samples": how.num_samples, "seed": how.seed}
        return pd.DataFrame(scoring.score(loaded.model, images, chosen, watch=tracked("scoring"), **noise).columns())


def inpaint(
    run: Run | str | Path,
    x: Any,
    mask: Any = None,
    *,
    num: int | None = None,
    num_pseudo_gibbs: int | None = None,
    num_steps: int | None = None,
    num_samples: int | None = None,
    seed: int | None = None,
) -> Inpaintings:
    """`vae-lab inpaint run=RUN`: draws of what is missing of images.

    Args:
        run: a run, or its directory.
        x: whole images, as `Run` takes them; what is missing of them is used for `log_conditional` alone.
        mask: a name that the command knows, or an array [height, width] that is not 0 where pixels are missing.
        num: chains for each image, each of which ends in a draw.
        num_pseudo_gibbs: steps that take every proposal, to begin with.
        num_steps: of Metropolis-within-Gibbs and Hamiltonian Monte Carlo; the first half is burn-in.
        num_samples: of importance sampling.
        seed: of the noise, and of a random mask.
    """
    with at_work(run) as loaded:
        name = mask if isinstance(mask, str) else None
        keys = {"mask": name, "num": num, "num_pseudo_gibbs": num_pseudo_gibbs, "num_steps": num_steps}
        keys |= {"num_samples": num_samples, "seed": seed}
        settings = _settings(ChainSettings, "inpaint", loaded, keys)
        missing = settings.missing(loaded)
        if mask is not None and name is None:
            missing = mask_of_array(_tensor(mask, "mask").cpu().numpy(), loaded.model.image_shape, "an array")
        found = inpainted(loaded, images_of(loaded, x), missing, settings, "images")
    measured = {name: torch.from_numpy(values) for name, values in measured_of(found).items()}
    parts = {"missing": missing, **pictures_of(found), **measured}
    return Inpaintings(**{name: _like(values, x) for name, values in parts.items()})


def classify(
    run: Run | str | Path, labels: Sequence[int] | None = None, *, repeats: int | None = None, seed: int | None = None
) -> pd.DataFrame:
    """`vae-lab classify run=RUN`: the test errors of classifiers that learn from so many labelled images each.

    Args:
        run: a run, or its directory.
        labels: numbers of labelled training images.
        repeats: draws of them.
        seed: of the draws.
    """
    with at_work(run) as loaded:
        keys = {"labels": labels, "repeats": repeats, "seed": seed}
        settings = _settings(ClassifySettings, "classify", loaded, keys)
        require_labels(loaded, settings)
        records = table_of(loaded, settings).records
    assert records is not None
    return records


def export(run: Run | str | Path, out: str | Path, *, format: str | None = None, overwrite: bool | None = None) -> Path:
    """`vae-lab export run=RUN out=OUT`: writes the model for other programs into a folder, and returns that.

    Args:
        run: a run, or its directory.
        out: the folder.
        format: onnx, safetensors or torch.
        overwrite: whether what lies there is replaced.
    """
    keys = _given({"format": format, "overwrite": overwrite})
    (path,) = call("export", {**_naming(_loaded(run)), "out": out, **keys})
    return path


def explore(run: Run | str | Path | Sequence[Run | str | Path], **keys: Any) -> Path:
    """`vae-lab explore run=RUN KEY=VALUE ...`: writes the latent space as a page for the browser, and returns its path.

    Args:
        run: a run, or its directory; or two that stand side by side.
        keys: of the command: out="page.html", num_images=20.
    """
    several = [run] if isinstance(run, load.Run | str | Path) else run
    first, *others = named = [_naming(_loaded(each)) for each in several]
    for key in ("checkpoint", "data_root"):
        if (other := next((each[key] for each in others if each[key] != first[key]), first[key])) != first[key]:
            raise ConfigError(f"{key} must be the same for runs side by side, got {first[key]} and {other}")
    both = {"run": [each["run"] for each in named], "allow": sorted({name for each in named for name in each["allow"]})}
    (path,) = call("explore", {**first, **both, **keys})
    return path


def runs(root: str | Path | Sequence[str | Path] = "outputs", *, where: Sequence[str] = ()) -> pd.DataFrame:
    """`vae-lab runs`: a row for each run below a folder, or several, and a column for every key of theirs.

    Args:
        root: folders, or patterns.
        where: conditions, all of which hold: ["status=finished", "model.latent_dim>=5"].
    """
    roots = folders_of([root] if isinstance(root, str | Path) else root)
    frame = Runs(find_runs(roots)).that_have(where).frame
    first = [key for key in ("path", "status", "data.name", "test/bound") if key in frame]
    return frame.reindex(columns=first + [key for key in frame if key not in first]).infer_objects()


def _naming(run: load.Run) -> dict[str, Any]:
    """The keys by which a command reads this very run."""
    allow = foreign_packages(run.config)
    return {"run": str(run.path), "checkpoint": run.checkpoint, "data_root": run.data_root, "allow": allow}


def _settings(kind: type[Settings], command: str, run: load.Run, keys: Mapping[str, Any]) -> Settings:
    """The settings of a command on a run."""
    return build.settings(kind, config_of(command, {**_naming(run), **_given(keys)}))


def _given(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are not None: the others have the command's own values."""
    return {key: value for key, value in keys.items() if value is not None}


def _loaded(run: load.Run | str | Path) -> load.Run:
    return run if isinstance(run, load.Run) else load_run(run)


@contextmanager
def at_work(run: load.Run | str | Path) -> Iterator[load.Run]:
    """A block of a command's work on a run, which multiplies as the run was planned to."""
    with as_a_command():
        loaded = _loaded(run)
        use_backend_of(loaded)
        yield loaded
