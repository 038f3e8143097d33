"""One optimiser step: the loss is divided by the weight of the whole batch, however the batch is cut."""

import dataclasses

import pytest
import torch

from olmo.checkpoints import model_tensors
from olmo.exceptions import OLMoDataError
from olmo.nn.losses import naive_linear_cross_entropy
from olmo.train.config import TrainConfig
from olmo.train.optim import OptimizerConfig, build_optimizer
from olmo.train.scheduler import Scheduler, SchedulerConfig
from olmo.train.step import TrainingDiverged, TrainStep, batch_counts, loss_weight, mean_metrics, out_of_memory
from tests.train.ranks import ALONE
from tests.train.tiny_run import CELLS, make_batch, model_config

PEAKS = {"llm": 1e-2, "vit": 2e-2, "connector": 3e-2, "temporal_token_scorer": 4e-2}


def make_step(config, micro=8, **settings):
    torch.manual_seed(0)
    model = config.build_model("cpu")
    model.reset_parameters()
    rates = {f"{group}_learning_rate": peak for group, peak in PEAKS.items()}
    cfg = TrainConfig(
        model=config, device_train_microbatch_size=micro, optimizer=OptimizerConfig(**rates), softmax_auxiliary_loss=True, **settings
    )
    optimizer = build_optimizer(cfg.optimizer, model)
    scheduler = Scheduler(SchedulerConfig(llm_t_warmup=0, vit_t_warmup=0, connector_t_warmup=0, temporal_token_scorer_t_warmup=0), 100)
    return TrainStep(cfg, model, optimizer, scheduler, ALONE)


def gradients(step):
    return {n: p.grad.clone() for n, p in model_tensors(step.model).items() if p.grad is not None}


def test_loss_and_gradients_against_the_definition():
    """sum(w CE)/sum(w) + scale * sum(w lse^2)/sum(w) + aux, written out over all logits.

    Seen to fail when the divisor is the number of tokens, of rows or of micro-batches instead of the total weight.
    """
    config = model_config()
    batch = make_batch(config, [4, 2])
    step = make_step(config)
    model = step.model.train()
    out = model(batch, logits="loss")
    rows = batch.loss_masks > 0
    labels, weights = batch.labels[rows], batch.loss_masks[rows]
    eye = torch.eye(out.logits.shape[1])
    terms = naive_linear_cross_entropy(out.logits, eye, labels, weights)
    expected = (terms.ce + 1e-4 * terms.z) / weights.sum() + out.aux_loss
    expected.backward()
    oracle = gradients(step)
    result = step(batch, 1)
    assert result.metrics["train/CrossEntropyLoss"] == pytest.approx(float((terms.ce / weights.sum()).detach()), rel=1e-6)
    assert result.metrics["train/ZLoss"] == pytest.approx(1e-4 * float((terms.z / weights.sum()).detach()), rel=1e-6)
    assert result.metrics["train/AuxLoss"] == pytest.approx(float(out.aux_loss.detach()), rel=1e-6)
    found = gradients(step)
    assert found.keys() == oracle.keys()
    for name, grad in oracle.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_do_not_matter(micro):
    """Rows of very different weight, cut unevenly. Seen to fail with each micro-batch divided by its own weight.

    Without pruning, so that the auxiliary loss (a mean over micro-batches by definition) stays out of it.
    """
    config = model_config("video_olmo")
    batch = make_batch(config, [4, 0, 1])
    batch.loss_masks[0] *= 20.0
    whole, cut = make_step(config, micro=8), make_step(config, micro=micro)
    a, b = whole(batch, 1), cut(batch, 1)
    for key in ("train/CrossEntropyLoss", "train/ZLoss", "train/Accuracy", "optim/llm_grad_norm"):
        assert a.metrics[key] == pytest.approx(b.metrics[key], rel=1e-5), key
    for (name, p), q in zip(model_tensors(whole.model).items(), model_tensors(cut.model).values(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_aux_loss_is_the_mean_over_micro_batches():
    config = model_config()
    batch = make_batch(config, [4, 3])
    step = make_step(config, micro=1)
    step.model.train()
    with torch.no_grad():
        alone = [float(step.model(batch.rows(i, i + 1), compute_loss=True).aux_loss) for i in range(2)]
    assert step(batch, 1).metrics["train/AuxLoss"] == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_every_group_gets_its_rate_and_moves():
    """Seen to fail when one group's rate is given to all."""
    step = make_step(model_config())
    before = {n: p.detach().clone() for n, p in model_tensors(step.model).items()}
    result = step(make_batch(step.cfg.model, [4, 2]), 10)
    moved = {
        g["group_name"]
        for g in step.optimizer.param_groups
        for n in g["param_names"]
        if not torch.equal(before[n], model_tensors(step.model)[n])
    }
    assert moved == set(PEAKS)
    rates = {group: step.scheduler.learning_rate(group, peak, 10) for group, peak in PEAKS.items()}
    assert {g["group_name"]: g["lr"] for g in step.optimizer.param_groups} == pytest.approx(rates)
    assert {group: result.metrics[f"optim/{group}_lr"] for group in PEAKS} == pytest.approx(rates)
    assert all(result.metrics[f"optim/{g}_grad_norm"] > 0 for g in moved)


def test_counts():
    config = model_config()
    batch = make_batch(config, [4, 2, 0], text=8)
    result = make_step(config)(batch, 1)
    dropped = int(CELLS * 0.5 * 4) + int(CELLS * 0.5 * 2)
    assert (result.frames, result.examples, result.loss_tokens) == (6, 3, 12)
    before, after = (result.metrics[f"batch/{key}"] * 3 for key in ("tokens_before_pruning", "non_masked_tokens"))
    assert (before, after) == (6 * CELLS + 3 * 8, 6 * CELLS + 3 * 8 - dropped)
    assert result.metrics["train/kept_fraction"] == pytest.approx(0.5)
    assert mean_metrics({"a": [1.0, torch.tensor(3.0)], "b": [(4.0, 2.0), (0.0, 2.0)], "c": [(0.0, 0.0)]}) == {"a": 2.0, "b": 1.0, "c": 0.0}


def test_packed_rows_and_branches_are_counted():
    batch = make_batch(model_config(), [0, 0], text=6)
    assert batch_counts(batch)["packed"] == 2
    batch.subsegment_ids = torch.tensor([[10000, 1, 2, 110000, 100001, 100001], [0, 0, 0, 0, -1, -1]])
    counts = batch_counts(batch)
    assert (counts["packed"], counts["branches"]) == (3, 4)


def test_weights_below_zero_and_missing_labels_count_nothing():
    batch = make_batch(model_config(), [0], text=4)
    batch.loss_masks = torch.tensor([[1.0, -1.0, 0.5, 2.0]])
    batch.labels = torch.tensor([[5, 5, 5, -1]])
    assert float(loss_weight(batch)) == 1.5


def test_a_loss_that_is_no_number_names_the_step(tmp_path):
    step = make_step(model_config("video_olmo"), save_folder=str(tmp_path))
    with torch.no_grad():
        step.model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"step 7: train/CrossEntropyLoss is not finite"):
        step(make_batch(step.cfg.model, [2]), 7)


def test_a_batch_without_loss_is_an_error():
    config = model_config("video_olmo")
    batch = make_batch(config, [0])
    batch = dataclasses.replace(
        batch, loss_masks=batch.loss_masks.clamp(max=0.0), layout=(dataclasses.replace(batch.layout[0], num_loss_tokens=0),)
    )
    with pytest.raises(OLMoDataError, match="step 1: no row of the global batch has a token with a loss weight"):
        make_step(config)(batch, 1)


def test_the_wish_to_stop_is_reported():
    step = make_step(model_config("video_olmo"))
    batch = make_batch(step.cfg.model, [0])
    assert not step(batch, 1).stop
    assert step(batch, 2, wish=lambda: True).stop


def test_out_of_memory_names_what_to_lower():
    err = out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ..."))
    assert "--device_batch_size" in str(err) and "--seq_len" in str(err) and "max_frames" in str(err)
    assert "\n" not in str(err)
