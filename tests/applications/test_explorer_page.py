"""The explorer's page in Chromium: its numbers are Python's, and it can be dragged, drawn on and read by keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Browser, chromium
from drawn_run import make_drawn_run
from torch import Tensor, nn
from training import composed, train_tiny

from vae_lab.applications.explorer import EXPECTATION_NODES, INTEGRAL_NODES, with_weights
from vae_lab.applications.traced import traced
from vae_lab.commands.explore import ExploreSettings, explore
from vae_lab.distributions import kl_to_standard_normal
from vae_lab.elbo import sgvb_b
from vae_lab.estimators.base import Noise
from vae_lab.estimators.grids import gauss_hermite
from vae_lab.estimators.quadrature import Quadrature
from vae_lab.model import VAE
from vae_lab.runs.directory import RunDir
from vae_lab.runs.load import load_run
from vae_lab.wiring import build

pytestmark = pytest.mark.slow

NETWORKS = {
    "mlp": (),
    "conv": ("model=conv", "model.encoder.channels=[4,6]", "model.encoder.hidden=16"),
}
LIKELIHOODS = {
    "bernoulli": (),
    "gaussian": ("likelihood=gaussian", "likelihood.min_log_variance=-4"),
    "continuous_bernoulli": ("likelihood=continuous_bernoulli",),
}
RELATIVE, LEAST = 1e-4, 1e-5
"""Of the page's numbers, and in nats where they are next to nothing."""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """A browser in which nothing went wrong, and that asked for no other address."""
    yield window
    assert window.complaints() == []


def trained(folder: Path, *overrides: str) -> RunDir:
    return train_tiny(folder, "model.latent_dim=2", "trainer.max_epochs=4", "optimizer.lr=0.005", *overrides)


def page_of(*runs: RunDir, settings: tuple[str, ...] = ()) -> Path:
    paths = ",".join(str(run.path) for run in runs)
    with composed("explore", f"run=[{paths}]", "threads=1", *settings) as cfg:
        (page,) = explore(build.settings(ExploreSettings, cfg))
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return trained(tmp_path_factory.mktemp("explored") / "run", "checkpoint.at=[300,600]")


@pytest.fixture(scope="module")
def page(run: RunDir) -> Path:
    return page_of(run)


def stored(run: RunDir, browser: Browser) -> VAE:
    """The model with the weights that the page has."""
    kinds = browser.run("frame(models[0]).about.kinds")
    return with_weights(load_run(run.path).model, kinds).eval()


@torch.no_grad()
def pythons(model: VAE, x: Tensor) -> dict[str, Any]:
    """What the page must say of an image [1, channel, height, width]."""
    q = model.posterior(x)
    nodes, log_weights = gauss_hermite(EXPECTATION_NODES[2], 2)
    bound = sgvb_b(model, x, len(nodes), posterior=q, noise=nodes.float()[:, None])
    reconstruction = float(log_weights.exp() @ bound.log_likelihood[:, 0].double())
    kl = kl_to_standard_normal(q)[0].double()
    log, _ = Quadrature(num_nodes=INTEGRAL_NODES).estimate_batch(model, x, Noise(x, (0,), 0, 1))
    return {
        "mean": q.mean[0].tolist(),
        "sd": q.std[0].tolist(),
        "reconstruction": reconstruction,
        "klPerDimension": kl.tolist(),
        "kl": float(kl.sum()),
        "bound": reconstruction - float(kl.sum()),
        "log": float(log[0]),
    }


def visible(browser: Browser) -> dict[str, float]:
    """The numbers of the table, once they are there."""
    browser.wait("document.querySelector('#numbers td.log').dataset.value")
    return browser.run(
        "Object.fromEntries([...$('numbers').querySelectorAll('td')].map((e) => [e.className, +e.dataset.value]))"
    )


@pytest.mark.parametrize(
    ("network", "likelihood"),
    [
        ("mlp", "bernoulli"),
        ("mlp", "gaussian"),
        ("mlp", "continuous_bernoulli"),
        ("conv", "bernoulli"),
        ("conv", "gaussian"),
    ],
)
def test_numbers_are_pythons(tmp_path, browser, network, likelihood):
    run = trained(tmp_path / "run", *NETWORKS[network], *LIKELIHOODS[likelihood])
    browser.open(page_of(run))
    model, x = stored(run, browser), load_run(run.path).data.splits["test"].images
    for place in (1, 5):
        browser.click(f"#strip button:nth-child({place + 1})")
        expected, found = pythons(model, x[place : place + 1]), visible(browser)
        found |= browser.run("(({ mean, sd, klPerDimension }) => ({ mean, sd, klPerDimension }))(seen.results[0])")
        assert found.pop("gap") == pytest.approx(
            expected["log"] - expected["bound"], abs=RELATIVE * abs(expected["log"])
        )
        assert found == {name: pytest.approx(value, rel=RELATIVE, abs=LEAST) for name, value in expected.items()}
    assert expected["bound"] < expected["log"] and expected["kl"] > 0.01


def test_dragging_through_the_plane_decodes_at_once(run, page, browser):
    browser.open(page)
    before = browser.picture("#decodings canvas")
    browser.drag(".plane canvas", (0.3, 0.3), (0.5, 0.4), (0.8, 0.75))
    z = browser.run("[...seen.z]")
    share = torch.special.ndtr(torch.tensor(z)).tolist()
    assert share[0] == pytest.approx(0.8, abs=0.04) and share[1] == pytest.approx(0.25, abs=0.04)
    now = browser.picture("#decodings canvas")
    assert now != before
    with torch.no_grad():
        image = stored(run, browser).likelihood(torch.tensor([z])).mean[0, 0]
    ink, paper = browser.run("[look.inkRGB[0], look.paperRGB[0]]")
    expected = (paper + image * (ink - paper)).flatten()
    assert (torch.tensor(now) - expected).abs().max() <= 1
    assert browser.element("#sliders output").text == f"{z[0]:.2f}".replace("-", "\u2212")


def test_the_plane_and_the_drawing_surface_obey_the_keyboard(page, browser):
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    browser.press(".plane canvas", Keys.HOME)
    assert browser.run("[...seen.z]") == [0, 0]
    browser.press(".plane canvas", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert torch.special.ndtr(torch.tensor(browser.run("[...seen.z]"))).tolist() == pytest.approx(
        [0.52, 0.49], abs=1e-4
    )
    assert "z is 0.05, \u22120.03" in browser.run("document.getElementById('read-aloud').textContent")
    browser.press("#clear", Keys.ENTER)
    assert browser.run("Math.max(...seen.x)") == 0
    browser.press("#pad", Keys.ARROW_UP, Keys.SPACE)
    assert browser.run("[seen.x[3 * 8 + 4], seen.x[7 * 8]]") == [1, 0]
    unnamed = (
        "[...document.querySelectorAll('button, input, select, canvas')].map((e) => [e, e.closest('button') ?? e])"
        ".filter(([e, b]) => !(b.textContent.trim() || b.ariaLabel || e.labels?.length)).map(([e]) => e.outerHTML)"
    )
    assert browser.run(unnamed) == []


def test_a_drawn_image_has_pythons_numbers_and_its_ellipse(run, page, browser):
    browser.open(page)
    browser.click("#clear")
    empty = browser.run("[...seen.q[0].mean]")
    browser.drag("#pad", (0.5, 0.15), (0.5, 0.5), (0.5, 0.85))
    x = torch.tensor(browser.run("[...seen.x]")).view(1, 1, 8, 8)
    assert x[0, 0, 2:7, 3:5].min() > 0.5 and x[0, 0, :, 0].max() == 0  # as thick as the screen's pixels let it be
    expected, found = pythons(stored(run, browser), x), visible(browser)
    assert browser.run("[...seen.q[0].mean]") == pytest.approx(expected["mean"], rel=RELATIVE, abs=LEAST)
    assert expected["mean"] != pytest.approx(empty, rel=0.01)
    for name in ("reconstruction", "kl", "bound", "log"):
        assert found[name] == pytest.approx(expected[name], rel=RELATIVE, abs=LEAST)
    code = browser.run("python()")
    names: dict[str, Any] = {}
    exec(code, names)  # what a reader would paste
    assert torch.allclose(names["x"], x, atol=0.5 / 255 + 1e-6)
    assert names["image"].shape == (1, 1, 8, 8) and names["bound"].total < 0


def test_what_is_rubbed_out_is_filled_in_and_the_rest_stays(page, browser):
    browser.open(page)
    browser.click("#fill")
    assert browser.element("#fill-state").text == "Rub out a part of the image first."
    browser.click("[data-tool=rub]")
    browser.drag("#pad", (0.8, 0.2), (0.8, 0.8))
    missing = browser.run("[...seen.missing]")
    assert 8 <= sum(missing) <= 32
    assert browser.run("[!!seen.q[0], seen.results[0]?.bound ?? null]") == [False, None]
    browser.click("#fill")
    browser.wait("document.getElementById('fill').textContent === 'Fill in'")
    assert "draw 8 of 8" in browser.element("#fill-state").text and "% accepted" in browser.element("#fill-state").text
    whole = browser.picture("#strip button:nth-child(1) canvas")
    draws = [browser.picture(f"#fills canvas:nth-child({i})") for i in range(1, 9)]
    for draw in draws:
        assert [grey for grey, gone in zip(draw, missing, strict=True) if not gone] == [
            grey for grey, gone in zip(whole, missing, strict=True) if not gone
        ]
    assert len({tuple(draw) for draw in draws}) > 1


def test_the_chain_has_the_exact_conditional_moments_of_a_linear_model(run, page, browser):
    """p(x_missing | x_observed) in closed form: 4 pixels that are W z + b with noise, an encoder that is not exact."""
    torch.manual_seed(1)
    weight, bias, noise = torch.randn(4, 2), torch.randn(4), 0.5
    encoder, decoder = nn.Linear(4, 4), nn.Linear(2, 8)
    with torch.no_grad():
        precision = torch.eye(2) + weight.T @ weight / noise**2
        gain = torch.linalg.solve(precision, weight.T / noise**2)
        encoder.weight.copy_(torch.cat([0.8 * gain, torch.zeros(2, 4)]))
        encoder.bias.copy_(torch.cat([-gain @ bias, (1.5 / precision.diagonal()).log()]))
        decoder.weight.copy_(torch.cat([weight, torch.zeros(4, 2)]))
        decoder.bias.copy_(torch.cat([bias, torch.full((4,), noise).square().log()]))

    class Halves(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return self.layer(x).chunk(2, 1)

    about = {
        "encoder": traced(Halves(encoder), torch.zeros(1, 4), "it").plain,
        "decoder": traced(Halves(decoder), torch.zeros(1, 2), "it").plain,
    }
    x, missing = [1.0, -1.0, 0.0, 0.0], [2, 3]
    browser.open(page)
    script = """(() => {
        const made = new Frame(given[0], "DiagonalGaussian"), sums = [0, 0, 0, 0];
        const term = (m, v, x) => -0.5 * (v + (x - m) ** 2 / Math.exp(v) + LOG_2PI);
        made.density = { ...made.density, log: ([m, v], x) => m.reduce((s, _, i) => s + term(m[i], v[i], x[i]), 0) };
        let num = 0, last;
        for (const { step, means, accepted, proposed } of gaps(made, given[1], given[2], 20, 40000)) {
            last = accepted / proposed;
            if (step <= 1000) continue;
            num++;
            means.forEach((value, k) => { sums[k] += value; sums[k + 2] += value * value; });
        }
        return { moments: sums.map((sum) => sum / num), accepted: last };
    })()"""
    found = browser.run(script, about, x, missing)
    observed, gone = weight[:2], weight[2:]
    covariance = torch.linalg.inv(torch.eye(2) + observed.T @ observed / noise**2)
    mean = covariance @ observed.T @ (torch.tensor(x[:2]) - bias[:2]) / noise**2
    expected = gone @ mean + bias[2:]
    squares = (gone @ covariance @ gone.T).diagonal() + expected.square()
    spread = (gone @ covariance @ gone.T).diagonal().sqrt()
    error = 6 * spread / 39_000**0.5 * 6  # of a chain whose draws are worth a thirty-sixth of as many
    assert 0.05 < found["accepted"] < 0.999
    assert ((torch.tensor(found["moments"][:2]) - expected).abs() < error).all()
    assert ((torch.tensor(found["moments"][2:]) - squares).abs() < error * (2 * expected.abs() + 2 * spread)).all()


def test_the_film_goes_through_the_snapshots(run, page, browser):
    browser.open(page)
    assert browser.run("times") == [300, 600, 1200]
    script = "given[0].value = given[1]; given[0].dispatchEvent(new Event('input'))"
    for place, samples in enumerate((300, 600)):
        browser.driver.execute_script(script.replace("given", "arguments"), browser.element("#time"), place)
        browser.settle()
        assert browser.element("#samples").text == f"{samples} samples"
        z = browser.run("[...seen.q[0].mean]")
        expected = with_weights(
            load_run(run.path, checkpoint=samples).model, browser.run("frame(models[0]).about.kinds")
        )
        with torch.no_grad():
            mean = expected.posterior(load_run(run.path).data.splits["test"].images[:1]).mean[0]
        assert z == pytest.approx(mean.tolist(), rel=RELATIVE, abs=LEAST)


def test_two_runs_stand_side_by_side_at_the_same_z(run, tmp_path, browser):
    other = trained(tmp_path / "other", "objective=wake_sleep", "seed=1")
    browser.open(page_of(run, other, settings=(f"out={tmp_path}/both.html",)))
    assert not (run.path / "both.html").exists() and browser.run("models.length") == 2
    names = [figure.text for figure in browser.driver.find_elements("css selector", ".plane h2")]
    assert names[0].startswith("A ") and names[1].startswith("B wake")
    browser.drag(".plane:nth-child(2) canvas", (0.4, 0.4), (0.6, 0.6))
    z = torch.tensor([browser.run("[...seen.z]")])
    for place, each in enumerate((run, other)):
        kinds = browser.run("frame(models[given[0]]).about.kinds", place)
        with torch.no_grad():
            image = with_weights(load_run(each.path).model, kinds).likelihood(z).mean.flatten()
        shown = browser.run("[...frame(models[given[0]]).decoded(seen.z)]", place)
        assert shown == pytest.approx(image.tolist(), abs=1e-5)


def test_more_dimensions_have_sliders_by_kl_and_a_chosen_plane(finished_run, tmp_path, browser):
    browser.open(page_of(finished_run, settings=(f"out={tmp_path}/three.html", "num_samples=7")))
    kl = browser.run("facts.kl")
    order = sorted(range(3), key=lambda j: -kl[j])
    assert browser.run("ORDER") == order and browser.run("RULE.length") == 7
    labels = [slider.text.split()[0] for slider in browser.driver.find_elements("css selector", ".slider")]
    assert labels == [f"z{'₀₁₂'[j]}" for j in order]
    browser.run("$('up').value = given[0], $('up').dispatchEvent(new Event('change'))", str(order[2]))
    browser.drag(".plane canvas", (0.5, 0.5), (0.3, 0.2))
    z = browser.run("[...seen.z]")
    assert torch.special.ndtr(torch.tensor(z))[[order[0], order[2]]].tolist() == pytest.approx([0.28, 0.82], abs=0.05)
    assert not browser.element("#numbers th.exact").is_displayed()


@pytest.mark.parametrize("has_encoder", [True, False])
def test_colour_images_without_labels_in_one_dimension_without_an_encoder(tmp_path, browser, has_encoder):
    path = tmp_path / "colour.npz"
    noise, shape = np.random.default_rng(0), (60, 6, 5, 3)
    np.savez(path, x=noise.integers(0, 256, shape, np.uint8) if has_encoder else noise.random(shape, np.float32))
    data = {"_target_": "vae_lab.data.npz.NPZ", "path": str(path), "batch_size": 10, "binarization": "none"}
    data |= {"train_size": None, "split_seed": 0, "keys": {}}
    run = make_drawn_run(tmp_path / "run", latent_dim=1, data=data, image_shape=(3, 6, 5), has_encoder=has_encoder)
    browser.open(page_of(run))
    loaded = load_run(run.path)
    x = loaded.data.splits["test"].images[:1]
    assert browser.run("[...seen.x]") == pytest.approx(x.flatten().tolist(), abs=1e-7)
    log, _ = Quadrature(num_nodes=INTEGRAL_NODES).estimate_batch(stored(run, browser), x, Noise(x, (0,), 0, 1))
    assert browser.run("seen.results[0].log") == pytest.approx(log[0].item(), rel=RELATIVE)
    assert browser.run("(seen.results[0].bound ?? null) === null") != has_encoder
    browser.drag(".plane canvas", (0.5, 0.5), (0.25, 0.5))
    assert torch.special.ndtr(torch.tensor(browser.run("seen.z[0]"))) == pytest.approx(0.22, abs=0.04)
    assert browser.element("#images figure:nth-child(2)").is_displayed() == has_encoder


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False), (390, True)])
def test_the_page_fits_the_screen(page, browser, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = browser.run("look.paperRGB[0]")
    assert (paper < 60) == dark


class Mixed(nn.Module):
    """Operations that the lab's own networks have not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding="same", dilation=2, groups=2), nn.BatchNorm2d(8), nn.GELU(), nn.MaxPool2d(2)
        )
        self.second = nn.Sequential(nn.GroupNorm(2, 8), nn.Mish(), nn.Upsample(scale_factor=2), nn.PixelShuffle(2))
        self.third = nn.Sequential(nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1, groups=2), nn.AvgPool2d(2))
        self.norm = nn.LayerNorm(6)
        self.matrix = nn.Parameter(torch.randn(6, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.third(self.second(self.first(x)))
        left, right = nn.functional.pad(y, (1, 0, 0, 1)).chunk(2, 1)
        joined = torch.cat(
            [left * right, left - 2 * right.sigmoid(), y.mean((2, 3), keepdim=True).expand_as(left.repeat(1, 2, 1, 1))],
            1,
        )
        rows = self.norm(joined.flatten(2)[:, :, :6]) @ self.matrix
        tails = [nn.SELU(), nn.ELU(), nn.LeakyReLU(), nn.Softplus(), nn.SiLU(), nn.Hardswish(), nn.GELU("tanh")]
        return rows.amax(1), torch.stack([tail(rows) for tail in tails]), (rows[0].abs() + 1).log().clamp(max=0.5) ** 2


def test_the_operations_of_other_networks_are_pythons(page, browser):
    torch.manual_seed(0)
    network = Mixed()
    with torch.no_grad():
        for _ in range(3):
            network.first(torch.rand(8, 2, 8, 8))  # running statistics
    network.eval()
    browser.open(page)
    x = torch.rand(1, 2, 8, 8)
    with torch.no_grad():
        expected = network(x)
    program = traced(network, x, "it").plain
    found = browser.run("network(given[0])(given[1]).map((part) => [...part])", program, x.flatten().tolist())
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other.flatten().tolist(), rel=RELATIVE, abs=1e-6)
