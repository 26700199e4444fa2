"""The losses against the formulas, in plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from pea.models.conditioning import Conditioning
from pea.training.losses import LossWeights, combine, min_snr_weights, root, row_mse, text_distance, velocity_weights


def test_terms_are_means_over_the_whole_batch() -> None:
    noise_pred, culture = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 7.0])
    blocks = {"mid_block": torch.tensor([3.0, 1.0]), "up_blocks.0": torch.tensor([2.0, 2.0])}
    losses = combine(noise_pred, blocks, culture, 4, LossWeights(2.0, 0.1, {"mid_block": 3.0}, 0.5))
    assert losses.total.item() == pytest.approx(2.0 * 3 / 4 + 0.1 * (3.0 * 4 / 4 + 4 / 4) + 0.5 * 12 / 4)
    report = losses.report()
    assert report["features"].item() == pytest.approx(2.0)
    assert report["features/mid_block"].item() == pytest.approx(1.0)


def test_either_side_may_be_empty() -> None:
    nothing, rows = torch.zeros(0), torch.tensor([4.0])
    assert combine(nothing, {"mid_block": nothing}, rows, 1, LossWeights()).total.item() == 4.0
    assert combine(rows, {}, nothing, 1, LossWeights()).total.item() == 4.0
    assert combine(nothing, {}, nothing, 0, LossWeights()).total.item() == 0.0
    assert row_mse(torch.zeros(0, 4, 2, 2), torch.zeros(0, 4, 2, 2)).shape == (0,)


def test_row_weights_split_at_the_parallel_rows() -> None:
    weights = torch.tensor([0.5, 2.0, 3.0])
    losses = combine(
        torch.tensor([2.0, 1.0]), {"b": torch.tensor([1.0, 1.0])}, torch.tensor([1.0]), 3, LossWeights(), weights
    )
    assert losses.noise_pred.item() == pytest.approx(1.0)
    assert losses.blocks["b"].item() == pytest.approx(2.5 / 3)
    assert losses.diffusion.item() == pytest.approx(1.0)


def test_the_diffusion_loss_may_be_on_every_row() -> None:
    """Its rows are the last ones of the batch, so that with all of them each weight meets its own row."""
    weights = torch.tensor([0.5, 2.0])
    losses = combine(torch.tensor([2.0]), {}, torch.tensor([4.0, 1.0]), 2, LossWeights(), weights)
    assert losses.diffusion.item() == pytest.approx((4.0 * 0.5 + 1.0 * 2.0) / 2)
    assert losses.noise_pred.item() == pytest.approx(2.0 * 0.5 / 2)


def test_row_mse() -> None:
    prediction, target = torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), torch.zeros(2, 1, 2)
    assert row_mse(prediction, target).tolist() == [5.0, 0.0]


def test_min_snr() -> None:
    snr = torch.tensor([0.5, 5.0, 50.0])
    torch.testing.assert_close(min_snr_weights(snr, 5.0, "epsilon"), torch.tensor([1.0, 1.0, 0.1]))
    torch.testing.assert_close(min_snr_weights(snr, 5.0, "v_prediction"), torch.tensor([0.5 / 1.5, 5 / 6, 5 / 51]))


def test_an_error_of_the_noise_weighs_as_the_velocity_that_it_makes_wrong() -> None:
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    timesteps = torch.tensor([0, 300, 700, 999])
    signal = schedule.alphas_cumprod[timesteps].sqrt()[:, None].double()
    spread = (1 - signal**2).sqrt()
    image, noise, answer = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen_in_it = (signal * image + spread * noise - spread * answer) / signal
    velocity, wrong_velocity = signal * noise - spread * image, signal * answer - spread * seen_in_it
    weights = velocity_weights(signal[:, 0] ** 2 / spread[:, 0] ** 2, "epsilon")
    torch.testing.assert_close((row_mse(answer, noise) * weights).float(), row_mse(wrong_velocity, velocity))
    assert weights[-1] > 200 * weights[0]
    assert velocity_weights(torch.tensor([0.0, 2.0]), "v_prediction").tolist() == [1.0, 1.0]
    assert velocity_weights(torch.tensor([0.0, 1.0]), "epsilon").tolist() == pytest.approx([1001.0, 2.0])


def test_text_states_are_compared_by_their_means_over_tokens() -> None:
    student = Conditioning(torch.tensor([[[1.0], [3.0]], [[0.0], [0.0]]]), torch.tensor([[1.0], [1.0]]))
    teacher = Conditioning(torch.tensor([[[2.0], [2.0], [2.0]], [[1.0], [2.0], [3.0]]]), torch.tensor([[1.0], [4.0]]))
    assert text_distance(student, teacher).tolist() == [0.0, 4.0 + 9.0]
    alone = Conditioning(student.encoder_hidden_states, None)
    assert text_distance(alone, Conditioning(teacher.encoder_hidden_states, None)).tolist() == [0.0, 4.0]
    losses = combine(torch.zeros(2), {}, torch.zeros(0), 4, LossWeights(text=0.5), text=torch.tensor([0.0, 13.0]))
    assert losses.total.item() == pytest.approx(0.5 * 13 / 4)
    assert losses.report()["text"].item() == pytest.approx(13 / 4)


def test_a_minority_of_wrong_rows_moves_the_least_of_the_squares_and_not_that_of_the_roots() -> None:
    targets = torch.tensor([[0.0]] * 8 + [[10.0]] * 2)
    for error, least in ((root, 0.0), (lambda squares: squares, 2.0)):
        place = torch.full((1, 1), 1.0, requires_grad=True)
        optimizer = torch.optim.SGD([place], 0.05)
        for _ in range(400):
            optimizer.zero_grad()
            error(row_mse(place.expand(10, 1), targets)).mean().backward()
            optimizer.step()
        assert place.item() == pytest.approx(least, abs=0.06)


def test_the_root_has_a_gradient_where_nothing_is_wrong() -> None:
    distances = torch.zeros(2, requires_grad=True)
    root(distances).sum().backward()
    assert distances.grad is not None and torch.isfinite(distances.grad).all()
