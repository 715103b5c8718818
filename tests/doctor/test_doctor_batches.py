"""Probes of what a batch shows that its rows do not: state, random numbers, weights of the batch."""

import torch
from doctor_subjects import subject
from test_doctor_probes import bce

from detloss.doctor.probes import gradients, state, values


def test_gradients_switched_on_and_random_numbers():
    def switching(x, t):
        torch.set_grad_enabled(False)
        weight = (x.sigmoid() - t).abs()
        torch.set_grad_enabled(True)
        return weight * bce(x, t)

    def noisy(x, t):
        return bce(x, t - 0.1 * torch.rand_like(t))

    (finding,) = state.mutates_input(subject(switching), None)
    assert "switches gradients on" in finding.message
    (finding,) = state.mutates_input(subject(noisy), None)
    assert "random numbers" in finding.message
    assert gradients.wrong_gradient(subject(noisy), None) == []  # the same ones each time
    assert torch.is_grad_enabled()


def test_rounded_values_say_nothing_of_a_gradient():
    def half(x, t):
        p = x.half().sigmoid()
        return -(t * p.log() + (1 - t) * (1 - p).log())

    assert gradients.wrong_gradient(subject(half), None) == []


def test_weights_of_the_batch_are_no_missing_gradient():
    def balanced(x, t):
        share = t.mean()
        return (bce(x, t) * (t * (1 - share) + (1 - t) * share)).mean()

    (finding,) = gradients.not_differentiable(subject(balanced, reduction="other"), None)
    assert (finding.code, finding.level) == ("reduction", "warning")


def test_a_loss_largest_in_between_is_no_similarity():
    def wrong_gamma(x, t):
        cross = bce(x, t)
        return torch.exp(-2 * cross) * cross

    assert values.similarity_not_loss(subject(wrong_gamma), None) == []
    assert values.similarity_not_loss(subject(lambda x, t: -bce(x, t)), None)
