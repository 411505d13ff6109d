"""The value that stands for a run."""

import pytest

from vae_lab.runs.result import latest, one_draw_bound, result_of, results

LEDGER = {
    "checkpoint": "last",
    "train/bound": -20.0,
    "test/bound": -25.123,
    "test/kl": 3.0,
    "test/bound_sd": 9.0,
    "test[:10]/bound": -24.0,
    "test/log_likelihood/importance_sampling_100": -23.5,
    "test/log_likelihood/importance_sampling_100_se": 0.04,
    "test/log_likelihood/importance_sampling_100_seed": 0,
}


def test_bound_of_the_whole_test_split_stands_for_a_run():
    assert str(result_of(LEDGER)) == "test bound -25.12 nats"
    first_ten = {key: value for key, value in LEDGER.items() if not key.startswith("test/bound")}
    assert str(result_of(first_ten)) == "test[:10] bound -24.00 nats"
    assert result_of({"checkpoint": "last"}) is None


def test_bound_with_several_draws_says_so():
    ledger = LEDGER | {"test/bound_num_samples": 8, "test/bound_se": 0.012}
    assert str(result_of(ledger)) == "test bound -25.12 ± 0.01 nats (8 draws of z)"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective.beta": 4.0}, " (trained with beta 4)"),
        ({"objective.beta": 0.5, "objective.free_bits": 0.25}, " (trained with beta 0.5, free bits 0.25)"),
        ({"objective.beta": 1.0, "objective.free_bits": 0}, ""),
        ({"objective.beta": [4]}, ""),
    ],
)
def test_bound_of_a_training_with_another_loss_says_so(settings, said):
    assert str(result_of(LEDGER | settings)) == f"test bound -25.12 nats{said}"


def test_last_values_of_a_curve_say_how_they_were_measured_and_what_was_trained():
    rows = [{"samples_evaluated": 1.0, "test/bound": -9.0}, {"samples_evaluated": 2.0, "test/bound": -8.0}]
    for config in (
        {"evaluation": {"num_samples": 3}, "objective": {"beta": 4.0}},
        {"evaluation.num_samples": 3, "objective.beta": 4.0},
    ):
        assert str(result_of(latest(rows, config))) == "test bound -8.00 nats (3 draws of z) (trained with beta 4)"
    assert str(result_of(latest(rows, {}))) == "test bound -8.00 nats"


def test_bound_of_several_draws_is_not_taken_for_one_of_a_single_draw():
    assert one_draw_bound(LEDGER, "test") == -25.123 and one_draw_bound(LEDGER, "val") is None
    assert one_draw_bound(LEDGER | {"test/bound_num_samples": 1}, "test") == -25.123
    assert one_draw_bound(LEDGER | {"test/bound_num_samples": 8}, "test") is None


def test_run_without_a_bound_has_its_log_likelihood():
    ledger = {key: value for key, value in LEDGER.items() if "bound" not in key}
    assert str(result_of(ledger)) == "test log p(x) by importance sampling 100 -23.50 ± 0.04 nats"


def test_estimate_of_more_datapoints_and_with_more_samples_stands_for_a_run():
    names = (
        *("test/log_likelihood/importance_sampling_10", "test/log_likelihood/importance_sampling_5000"),
        *("test[:100]/log_likelihood/importance_sampling_10", "test[:1000]/log_likelihood/importance_sampling_10"),
    )
    ordered = [result.key for result in results(dict.fromkeys(names, -90.0))]
    assert ordered == [names[1], names[0], names[3], names[2]]
    chains = "test/log_likelihood/annealed_importance_sampling_16x10"
    assert [result.key for result in results({names[1]: -90.0, chains: -91.0})] == [chains, names[1]]
    assert result_of({"test[:100]/bound": -9.0, "test[:1000]/bound": -8.0}).key == "test[:1000]/bound"


@pytest.mark.parametrize(
    ("splits", "keys"),
    [
        (["train"], ["train/bound"]),
        (["test"], ["test/bound", "test[:10]/bound", "test/log_likelihood/importance_sampling_100"]),
    ],
)
def test_results_of_some_splits_are_their_bounds_and_then_their_log_likelihoods(splits, keys):
    assert [result.key for result in results(LEDGER, splits)] == keys
