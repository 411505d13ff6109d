"""Monte Carlo EM: HMC samples of p(z|x) in place of an encoder, then updates of the decoder (appendix E)."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vae_lab import hmc
from vae_lab.errors import require_choice, require_integer, require_number
from vae_lab.model import VAE, Images, Latents, PerDatapoint
from vae_lab.objectives.base import Minibatch, Objective, Terms, TrainingState, Traits

COUNTS = ("leapfrog_and_updates", "datapoints")


class MonteCarloEM(Objective):
    """One HMC trajectory of every datapoint's chain, then updates of log p(x|z) at the positions reached.

    Every training datapoint has one persistent chain, which starts from the prior and is kept in checkpoints.
    All chains share one step size; each accepts or rejects for itself.

    Args:
        num_leapfrog: leapfrog steps of a trajectory.
        num_updates: updates of the decoder with the positions reached.
        initial_step_size: the leapfrog step of the first iteration.
        target_acceptance: what the mean acceptance of the chains is tuned to.
        max_step_factor: an iteration multiplies or divides the step size by at most this factor: by more, the
            farther the acceptance is from its target.
        minibatches: false: an iteration takes the whole training split; true: `data.batch_size` datapoints.
        datapoints_at_once: so many go through the decoder together; moves memory and time only.
        count: samples evaluated, per datapoint of an iteration: `leapfrog_and_updates` (15 with the paper's
            numbers, as its figure 3 counts) or `datapoints` (1).
    """

    traits = Traits(
        has_encoder=False,
        single_process_because="all chains share one step size and lie in one process's memory",
        not_captured_because="Hamiltonian Monte Carlo takes gradients on the way, which has not been tried",
    )

    chain: Float[Tensor, "num latent"]
    step_size: Float[Tensor, ""]

    def __init__(
        self,
        *,
        num_leapfrog: int,
        num_updates: int,
        initial_step_size: float,
        target_acceptance: float,
        max_step_factor: float,
        minibatches: bool,
        datapoints_at_once: int,
        count: str,
    ) -> None:
        super().__init__()
        hmc.check_settings("objective", num_leapfrog, initial_step_size, target_acceptance)
        require_integer("objective.num_updates", num_updates, minimum=1, advice="the decoder must move")
        require_number("objective.max_step_factor", max_step_factor, at_least=1, advice="1 tunes nothing")
        require_integer("objective.datapoints_at_once", datapoints_at_once, minimum=1)
        require_choice("objective.count", count, COUNTS)
        self.num_leapfrog, self.num_updates = num_leapfrog, num_updates
        self.target_acceptance, self.max_step_factor = target_acceptance, max_step_factor
        self.datapoints_at_once = datapoints_at_once
        self.count = count
        self.traits = replace(
            self.traits,
            whole_training_split=not minibatches,
            samples_per_datapoint=num_leapfrog + num_updates if count == "leapfrog_and_updates" else 1,
        )
        self.register_buffer("step_size", torch.tensor(float(initial_step_size)))

    def prepare(self, model: VAE, num_train: int) -> None:
        """Starts the chains from the prior."""
        self.register_buffer("chain", model.prior().sample((num_train,)))
        if self.traits.whole_training_split and num_train > self.datapoints_at_once:
            reason = f"its {num_train} datapoints go through the decoder in pieces, which take their time anyhow"
            self.traits = replace(self.traits, not_compiled_because=reason)

    def updates(self, model: VAE, batch: Minibatch, state: TrainingState) -> Iterator[Terms]:
        """The E-step, then `num_updates` updates of the decoder."""
        z, acceptance, is_lost = self.move_chains(model, batch)
        made = self.step_size.clone()  # which tuning changes in place
        logged = {"acceptance": acceptance, "step_size": made.expand(len(z))}
        self.tune_step_size(acceptance)
        for update in range(self.num_updates):
            reconstruction = self.reconstruction(model, batch.x, z)
            loss = -reconstruction
            if update == 0:
                logged["log_joint"] = reconstruction + model.prior().log_prob(z)
                loss = loss.masked_fill(is_lost, math.inf)  # which ends the training
            yield Terms(loss, moves=model.decoder, logged=logged if update == 0 else {})

    def move_chains(self, model: VAE, batch: Minibatch) -> tuple[Latents, PerDatapoint, Bool[Tensor, " batch"]]:
        """One transition of the minibatch's chains: where they are now, how probable acceptance was, which are lost.

        Those are where the log density or its gradient is not finite: the weights have diverged.
        """
        z = self.chain[batch.index]
        momentum, uniform = torch.randn_like(z), torch.rand_like(z[:, 0])
        positions, acceptances, lost = [], [], []
        # densities that differ by rounding in bfloat16 would reject what is exact
        with torch.autocast(z.device.type, enabled=False):
            pieces = (each.split(self.datapoints_at_once) for each in (batch.x, z, momentum, uniform))
            for x, start, kick, draw in zip(*pieces, strict=True):

                def log_density(position: Tensor, x: Tensor = x) -> Tensor:
                    return model.log_joint(x, position)

                begin = hmc.evaluate(log_density, start)
                end, acceptance = hmc.transition(log_density, begin, self.step_size, self.num_leapfrog, kick, draw)
                positions.append(end.position)
                acceptances.append(acceptance)
                lost.append(~hmc.is_finite(begin))
        self.chain[batch.index] = torch.cat(positions)
        return torch.cat(positions), torch.cat(acceptances), torch.cat(lost)

    def tune_step_size(self, acceptance: PerDatapoint) -> None:
        """Longer steps where more is accepted than the target, the full factor where all is."""
        excess = (acceptance.mean() - self.target_acceptance) / (1 - self.target_acceptance)
        self.step_size *= self.max_step_factor ** excess.clamp(-1, 1).to(self.step_size)

    def reconstruction(self, model: VAE, x: Images, z: Latents) -> PerDatapoint:
        """Nats of log p(x|z); if large in pieces, which the backward pass computes anew to save memory."""

        def log_likelihood(x: Tensor, z: Tensor) -> Tensor:
            return model.likelihood(z).log_prob(x)

        if len(x) <= self.datapoints_at_once:
            return log_likelihood(x, z)
        pieces = zip(x.split(self.datapoints_at_once), z.split(self.datapoints_at_once), strict=True)
        return torch.cat([checkpoint(log_likelihood, *piece, use_reentrant=False) for piece in pieces])

    def describe(self) -> str:
        """The rule by which samples are counted."""
        rule = f"{self.num_leapfrog} leapfrog steps + {self.num_updates} updates"
        if self.count == "datapoints":
            rule = f"whatever the {rule}"
        return (
            f"samples evaluated ({self.count}): {self.traits.samples_per_datapoint} per datapoint and iteration, {rule}"
        )
