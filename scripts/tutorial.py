# %% [markdown]
# # Auto-Encoding Variational Bayes, in fifteen cells
#
# A walk through [the paper](https://arxiv.org/abs/1312.6114) (Kingma & Welling, 2013), from data to its figures 2 to 5
# in small. The data are 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn, so nothing is downloaded
# and everything takes about two minutes. Open this file in an editor that knows cells (VS Code, PyCharm, Spyder,
# Jupyter with jupytext), or run it as a script: `python scripts/tutorial.py`. Everything lands in `outputs/tutorial`.

# %% 1. What is used, and how long it may take
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vae_lab

SAMPLES = int(os.environ.get("VAE_LAB_TUTORIAL_SAMPLES", 100_000))  # training images presented, of each long training
FOLDER = Path(os.environ.get("VAE_LAB_TUTORIAL_FOLDER", "outputs/tutorial"))
FOLDER.mkdir(parents=True, exist_ok=True)
SETTINGS = {
    "data": "digits",
    "model.encoder.hidden": [200],  # one hidden layer, as in the paper; the decoder mirrors it
    "optimizer.lr": 3e-3,
    "max_samples": SAMPLES,
    "compile": False,  # which pays for longer trainings
    "threads": 1,  # on one core a training gives the same bits every time
    "callbacks": "none",
    "logger": "none",
    "output_root": FOLDER,
}

# %% 2. The problem (section 2)
# We see images x and believe that each was made in two steps: nature drew a few numbers z from the prior N(0, I), and
# then an image from p(x|z), whose parameters are a neural network's answer to z. Learning by maximum likelihood needs
# p(x), the integral of p(z) p(x|z) over z, and that has no closed form; nor has the posterior p(z|x). The paper's
# answer is a second network, the encoder q(z|x), which is trained together with the first, the decoder.
#
# Training such a pair takes one line. It is a run: its config, weights, curve and values lie in one folder for good.
run = vae_lab.train(overrides={**SETTINGS, "model.latent_dim": 2})
print(run)

# %% 3. The data
# 1,297 images to train on, 250 to choose weights by, 250 to test. A grey value between 0 and 1 is taken for the
# probability of a black pixel: the likelihood is Bernoulli, as in the paper's experiments on MNIST (appendix C.1).
test = run.data.splits["test"]
assert test.labels is not None  # the digits have labels, which only pictures are to know
figure, panels = plt.subplots(1, 10, figsize=(8, 1.2))
for panel, image, label in zip(panels, test.images, test.labels, strict=False):
    panel.imshow(1 - image[0], cmap="gray")
    panel.set(title=int(label), xticks=[], yticks=[])
figure.savefig(FOLDER / "data.png", dpi=150, bbox_inches="tight")

# %% 4. The bound (equations 2 and 3)
# For any q, log p(x) = KL(q(z|x) || p(z|x)) + L, and as the first term is not negative, L is a lower bound:
#     L = E_q[log p(x|z)] - KL(q(z|x) || p(z)).
# The first term wants images that are reconstructed well; the second wants q to stay near the prior, and so charges
# for what z tells about x. Both at work, for 100 test images:
x = test.images[:100]
q = run.model.posterior(x)  # N(mean, diag(std^2)), made by the encoder
z = q.rsample()
reconstruction = run.model.likelihood(z).log_prob(x)
kl = 0.5 * (q.mean**2 + q.std**2 - 1 - 2 * q.std.log()).sum(-1)  # appendix B: no sampling needed
print(f"bound {(reconstruction - kl).mean():.2f} = {reconstruction.mean():.2f} - {kl.mean():.2f} nats per image")

# %% 5. The reparameterisation trick (section 2.4)
# The encoder must learn from a draw of z. Written as z = mean + std * noise, with noise ~ N(0, I), the draw is a
# differentiable function of what the encoder said. The other way to a gradient, which multiplies the value by the
# gradient of log q (section 2.2), is right on average as well, and far noisier: here, for the mean of q of one image.
mean, std = q.mean[0].detach(), q.std[0].detach()
moved = mean.clone().requires_grad_()
by_path, by_score = [], []
for _ in range(200):
    noise = torch.randn_like(std)
    value = run.model.likelihood((moved + std * noise)[None]).log_prob(x[:1]).sum()
    by_path.append(torch.autograd.grad(value, moved)[0][0])
    by_score.append(value.detach() * noise[0] / std[0])
for name, draws in (("reparameterised", by_path), ("by the score of q", by_score)):
    print(f"{name}: gradient {torch.stack(draws).mean():.1f}, one draw is off by {torch.stack(draws).std():.1f}")

# %% 6. Learning (algorithm 1)
# So a minibatch of 100 images, one draw of z for each, and a step up the bound; that is all. The curve of the run has a
# row for each evaluation; the train column is a running mean over the minibatches since the last one.
history = run.history
print(history[["samples_evaluated", "train/bound_running", "test/bound"]].round(2).to_string(index=False))

# %% 7. Codes and reconstructions
# The encoder turns an image into two numbers with an error, the decoder turns numbers into an image. NumPy goes in and
# comes out; so does torch.
codes = run.encode(test.images.numpy())
print("codes", codes.shape, "images", run.decode(codes).shape)
run.plot("reconstructions").savefig(FOLDER / "reconstructions.png")
run.plot("latent_scatter").savefig(FOLDER / "codes.png")

# %% 8. What the bound leaves
# L falls short of log p(x) by KL(q(z|x) || p(z|x)). With two dimensions the integral can be taken on a grid, so we see
# both: the true posterior in blue, q as an ellipse. A Gaussian along the axes is a modest family, and mostly enough.
# More generally log p(x) is estimated by importance sampling, with q as the proposal.
ledger = vae_lab.evaluate(run, num_samples=8, threads=1)
print(f"bound {ledger['test/bound']:.2f}, log p(x) {ledger['test/log_likelihood/importance_sampling_500']:.2f} nats")
run.plot("posteriors").savefig(FOLDER / "posteriors.png")

# %% 9. Figure 4: the manifold
# Equal steps of probability under the prior, in both directions, and the decoder's image at each: what was learned, as
# a map. Neighbouring codes give similar images, although nobody asked for that.
run.plot("manifold").savefig(FOLDER / "figure4.png")

# %% 10. More dimensions
# How large should z be? The paper's answer: it does no harm. The KL switches off what does not pay, and more dimensions
# do not lead to overfitting.
SIZES = (2, 5, 10)
aevb = {2: run} | {size: vae_lab.train(overrides={**SETTINGS, "model.latent_dim": size}) for size in SIZES if size != 2}
for size, other in aevb.items():
    print(f"{size} dimensions: test bound {other.ledger['test/bound']:.2f}, active {other.ledger['test/active_units']}")

# %% 11. Figure 5: samples
# New digits, from draws of the prior alone.
for size, other in aevb.items():
    other.plot("samples").savefig(FOLDER / f"figure5_{size}.png")

# %% 12. Figure 2: against the wake-sleep algorithm
# The method of 1995 that trains such a pair of networks, too: the decoder learns from codes of real images, as above,
# but the encoder from dreams, images that the decoder made of draws from the prior. Two objectives, of which no single
# bound is the measure. Both are measured by the same bound here.
wake_sleep = {
    size: vae_lab.train(overrides={**SETTINGS, "model.latent_dim": size, "objective": "wake_sleep"}) for size in SIZES
}
figure, panels = plt.subplots(1, len(SIZES), figsize=(9, 2.8), sharey=True, layout="constrained")
for panel, size in zip(panels, SIZES, strict=True):
    for name, colour, trained in (("AEVB", "tab:red", aevb), ("wake-sleep", "tab:green", wake_sleep)):
        curve = trained[size].history
        panel.plot(curve["samples_evaluated"], curve["train/bound_running"], color=colour, label=f"{name} (train)")
        panel.plot(curve["samples_evaluated"], curve["test/bound"], "--", color=colour, label=f"{name} (test)")
    panel.set(title=f"$N_z = {size}$", xscale="log", xlabel="training samples")
panels[0].set(ylabel="bound, nats")
panels[-1].legend(fontsize=8)
figure.savefig(FOLDER / "figure2.png", dpi=150)

# %% 13. Figure 3: against Monte Carlo EM, with few images and with many
# Instead of an encoder, Monte Carlo EM asks a Markov chain for draws from p(z|x) (appendix E): no bound, hence no gap,
# but a chain for every image and every step. The paper compares the three by log p(x), with 1,000 and 50,000 training
# images; here with 100 and 1,000, and fewer samples. Weights on the way are kept at `checkpoint.at`.
ITERATION = 15_000  # samples of one iteration of Monte Carlo EM over 1,000 images
COUNTS = [count for count in (ITERATION, 2 * ITERATION, 4 * ITERATION) if count <= max(SAMPLES, ITERATION)]
few = {**SETTINGS, "max_samples": COUNTS[-1], "checkpoint.at": COUNTS, "model.latent_dim": 2, "evaluation.splits": []}
METHODS = {
    "aevb": ("AEVB", "tab:red"),
    "wake_sleep": ("wake-sleep", "tab:green"),
    "monte_carlo_em": ("MCEM", "tab:blue"),
}
compared = {
    (num, method): vae_lab.train(overrides={**few, "data.train_size": num, "data.batch_size": 50, "objective": method})
    for num in (100, 1000)
    for method in METHODS
}

# %% 14. Its curves
# With two dimensions log p(x) needs no estimate: quadrature over z is as good as exact.
figure, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for panel, num in zip(panels, (100, 1000), strict=True):
    for method, (name, colour) in METHODS.items():
        trained = compared[num, method]
        for split, dashes in (("train", "-"), ("test", "--")):
            images = trained.data.splits[split].images[:50]
            scores = [trained.at(count).score(images, estimator="quadrature") for count in COUNTS]
            values = [score["log_likelihood"].mean() for score in scores]
            panel.plot(COUNTS, values, dashes, color=colour, marker=".", label=f"{name} ({split})")
    panel.set(title=f"{num} training images", xscale="log", xlabel="training samples")
panels[0].set(ylabel="log p(x), nats")
panels[1].legend(fontsize=7)
figure.savefig(FOLDER / "figure3.png", dpi=150)

# %% 15. From here
# All of this is in the folder now, in one table. The paper's own figures, at their size and with the published curves
# behind ours, are one command: `vae-lab reproduce scale=quick`. Real MNIST: `vae_lab.train(experiment="mnist")`. The
# files to read are few: `vae_lab/elbo.py` is section 2, `vae_lab/distributions.py` appendix B, and the README says
# where the rest is.
every = vae_lab.runs(FOLDER)
print(every[["data.name", "objective", "model.latent_dim", "data.train_size", "test/bound"]].to_string(index=False))
