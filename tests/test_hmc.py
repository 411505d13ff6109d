import math

import pytest
import torch

from vae_lab import hmc


def gaussian(covariance):
    precision = torch.linalg.inv(covariance)

    def log_density(z):
        return -0.5 * torch.einsum("...i,ij,...j->...", z, precision, z)

    return log_density


def banana(z):
    """z1 ~ N(0, 1), z2 ~ N(z1^2 / 2, 1/4): mean (0, 1/2), variances (1, 3/4), E[z1^2 z2] = 3/2."""
    return -0.5 * z[..., 0] ** 2 - 2 * (z[..., 1] - 0.5 * z[..., 0] ** 2) ** 2


def noise_like(state):
    return torch.randn_like(state.position), torch.rand_like(state.log_density)


def run(log_density, position, step_size, *, num_leapfrog, num_transitions, tune=False):
    """All positions [transition, *chain, dim] and acceptances [transition, *chain]."""
    state = hmc.start(log_density, position)
    positions, acceptances = [], []
    for _ in range(num_transitions):
        state, acceptance = hmc.transition(log_density, state, step_size.value, num_leapfrog, *noise_like(state))
        if tune:
            step_size.update(acceptance)
        positions.append(state.position)
        acceptances.append(acceptance)
    return torch.stack(positions), torch.stack(acceptances)


def fixed(step_size):
    return hmc.StepSize(torch.as_tensor(step_size), target_acceptance=0.9, gain=1.0, decay=0.5)


@pytest.mark.parametrize("step_size", [0.35, 0.6])
def test_transition_is_in_detailed_balance_on_gaussians(step_size):
    """Begun in equilibrium, (before, after) has the law of (after, before)."""
    covariance = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.8, -0.2], [0.0, -0.2, 0.5]], dtype=torch.float64)
    log_density = gaussian(covariance)
    before = torch.randn(200_000, 3, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    after, acceptance = run(log_density, before, fixed(step_size), num_leapfrog=3, num_transitions=1)
    assert 0.4 < acceptance.mean() < 0.99
    tests = [
        lambda z: z,
        lambda z: z**2,
        lambda z: z**3,
        lambda z: (z > 1).double(),
        lambda z: z.roll(1, -1).abs(),
    ]
    for f in tests:
        invariance = f(after[0]) - f(before)
        within(invariance, 0.0)
        for g in tests:
            within(f(before) * g(after[0]) - g(before) * f(after[0]), 0.0)


@pytest.mark.slow
def test_banana_has_its_moments():
    tuned = hmc.StepSize(torch.tensor(0.1), target_acceptance=0.95, gain=1.0, decay=0.5)
    start = torch.randn(1000, 2, dtype=torch.float64)
    burnt_in, _ = run(banana, start, tuned, num_leapfrog=10, num_transitions=200, tune=True)
    z, _ = run(banana, burnt_in[-1], tuned, num_leapfrog=10, num_transitions=150)
    first, second = z[..., 0], z[..., 1]
    # One number for a chain: chains are independent, their own positions are not.
    within(first.mean(0), 0.0)
    within(second.mean(0), 0.5)
    within((first**2).mean(0), 1.0)
    within(((second - 0.5) ** 2).mean(0), 0.75)
    within((first**2 * second).mean(0), 1.5)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.65, 0.9])
@pytest.mark.parametrize("per_chain", [True, False])
def test_tuned_and_frozen_step_size_accepts_at_its_target(target, per_chain):
    """The mean over the last 1,000 transitions of 200 chains on densities of different widths."""
    width = torch.logspace(-0.3, 0.3, 200) if per_chain else torch.ones(200)
    scale = width[:, None] * torch.tensor([1.0, 0.5])

    def log_density(z):
        return -0.5 * (z / scale).square().sum(-1)

    initial = torch.full((200,), 0.3) if per_chain else torch.tensor(0.3)
    tuned = hmc.StepSize(initial, target_acceptance=target, gain=1.0, decay=0.7)
    start = scale * torch.randn(200, 2)
    burnt_in, _ = run(log_density, start, tuned, num_leapfrog=3, num_transitions=1000, tune=True)
    _, acceptance = run(log_density, burnt_in[-1], tuned, num_leapfrog=3, num_transitions=1000)
    assert acceptance.mean() == pytest.approx(target, abs=0.02)


@pytest.mark.slow
def test_step_size_without_decay_follows_a_density_that_moves():
    tuned = hmc.StepSize(torch.tensor(0.05), target_acceptance=0.9, gain=1.0, decay=0.0)
    position = torch.randn(200, 2)
    for width in (1.0, 0.1, 3.0):
        positions, acceptance = run(
            gaussian(width**2 * torch.eye(2)),
            position,
            tuned,
            num_leapfrog=4,
            num_transitions=250,
            tune=True,
        )
        position = positions[-1]
        assert acceptance[-125:].mean() == pytest.approx(0.9, abs=0.02)


def test_datapoints_share_a_step_size_among_their_chains():
    scale = torch.tensor([0.1, 1.0, 10.0])[:, None]
    tuned = hmc.StepSize(torch.full((3,), 0.5), target_acceptance=0.8, gain=1.0, decay=0.5)
    start = scale * torch.randn(50, 3, 4)
    run(
        lambda z: -0.5 * (z / scale).square().sum(-1),
        start,
        tuned,
        num_leapfrog=4,
        num_transitions=300,
        tune=True,
    )
    relative = tuned.settled / scale[:, 0]
    assert relative.max() / relative.min() < 1.3


def test_chains_do_not_touch_each_other():
    state = hmc.start(banana, torch.randn(5, 7, 2))
    momentum, uniform = noise_like(state)
    together, _ = hmc.transition(banana, state, torch.tensor(0.3), 5, momentum, uniform)
    alone = hmc.start(banana, state.position[2, 3:4])
    alone, _ = hmc.transition(banana, alone, torch.tensor(0.3), 5, momentum[2, 3:4], uniform[2, 3:4])
    torch.testing.assert_close(alone.position, together.position[2, 3:4])


def test_states_density_and_gradient_are_those_of_its_position():
    state = hmc.start(banana, torch.randn(100, 2))
    for _ in range(3):
        state, acceptance = hmc.transition(banana, state, torch.tensor(0.8), 3, *noise_like(state))
    assert acceptance.min() < 0.5
    again = hmc.start(banana, state.position)
    torch.testing.assert_close((state.log_density, state.gradient), (again.log_density, again.gradient))


def test_rejections_fall_with_the_square_of_the_step_size():
    """The mark of leapfrog on trajectories of one length: with Euler's method they would only halve."""
    state = hmc.start(banana, torch.randn(20_000, 2, dtype=torch.float64))
    momentum, uniform = noise_like(state)
    rejections = []
    for step_size, num_leapfrog in ((0.1, 10), (0.05, 20)):
        step_size = torch.tensor(step_size, dtype=torch.float64)
        _, acceptance = hmc.transition(banana, state, step_size, num_leapfrog, momentum, uniform)
        rejections.append(1 - acceptance.mean())
    assert rejections[0] / rejections[1] == pytest.approx(4, rel=0.15)


def test_trajectory_that_leaves_the_finite_numbers_is_rejected():
    state = hmc.start(lambda z: -z.pow(4).sum(-1), torch.ones(10, 2))
    moved, acceptance = hmc.transition(lambda z: -z.pow(4).sum(-1), state, torch.tensor(100.0), 20, *noise_like(state))
    assert torch.equal(acceptance, torch.zeros(10))
    assert torch.equal(moved.position, state.position)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_start_where_the_density_is_not_finite_is_refused(value):
    with pytest.raises(FloatingPointError, match="3 of 3 HMC chains start where the log density"):
        hmc.start(lambda z: z.sum(-1) * value, torch.ones(3, 2))


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("num_leapfrog", (0, 0.1, 0.9)),
        ("initial_step_size", (1, 0.0, 0.9)),
        ("target_acceptance", (1, 0.1, 1.0)),
    ],
)
def test_impossible_settings_are_refused_by_key(key, settings):
    with pytest.raises(ValueError, match=rf"objective\.{key} must be .*>.*, got"):
        hmc.check_settings("objective", *settings)


def within(draws, expected):
    """Every mean over the first dimension within 6 standard errors; exactly constant draws within rounding."""
    error = (draws.mean(0) - expected).abs()
    assert (error <= 6 * draws.std(0) / math.sqrt(len(draws)) + 1e-12).all()
