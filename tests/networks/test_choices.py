import pytest

from vae_lab.networks.choices import ACTIVATIONS, activation_class, check_widths


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_found_by_its_name(name):
    assert activation_class("model.encoder.activation", name) is ACTIVATIONS[name]


def test_unknown_activation_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"model\.encoder\.activation .*got 'tahn': did you mean tanh\?"):
        activation_class("model.encoder.activation", "tahn")


def test_activation_far_from_every_name_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"must be one of elu, gelu, .*got 'qqq': choose one of them"):
        activation_class("model.encoder.activation", "qqq")


def test_list_with_a_width_below_one_is_refused():
    with pytest.raises(ValueError, match=r"model\.x must be a list of integers >= 1, got \[5, 0\]: advice"):
        check_widths("model.x", [5, 0], "advice")
