"""Distillation: the softened KL divergence, and a student that becomes its teacher."""

import pytest
import torch
from test_objectives import assert_same, gradients, random_batch, tiny

from seedbed.errors import ConfigError
from training.objectives.causal_lm import CausalLM
from training.objectives.distillation import Distillation, soft_cross_entropy


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_soft_loss_is_its_formula(temperature):
    student, teacher = torch.randn(3, 8, 17, requires_grad=True), torch.randn(3, 8, 17)
    weights = torch.rand(3, 8)
    q, p = ((x.double() / temperature).softmax(-1) for x in (student, teacher))
    expected = temperature**2 * ((p * (p.log() - q.log())).sum(-1) * weights).sum()
    found, weight = soft_cross_entropy(student, teacher, weights, temperature=temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert weight == weights.sum()
    (ours,), (theirs,) = torch.autograd.grad(found, student), torch.autograd.grad(expected, student)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("num_chunks", [1, 5])
def test_hard_and_soft_losses_are_shares_of_one(num_chunks):
    student, teacher, batch = tiny(), tiny(family="llama", width=48), random_batch()
    logits, teacher_logits = student(batch.tokens), teacher(batch.tokens)
    soft = soft_cross_entropy(logits, teacher_logits, batch.weights, temperature=3.0)
    hard = CausalLM().loss(student, batch)
    expected = hard._replace(total=0.25 * hard.total + 0.75 * soft.total)
    objective = Distillation(teacher, temperature=3.0, soft_share=0.75, num_chunks=num_chunks)
    found = objective.loss(student, batch)
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    assert found.weight == expected.weight
    assert_same(gradients(student, found), gradients(student, expected), atol=2e-5, rtol=1e-4)
    assert all(p.grad is None for p in teacher.parameters())


def test_the_teacher_itself_has_nothing_to_learn():
    teacher, batch = tiny(), random_batch()
    student = tiny()
    student.load_state_dict(teacher.state_dict())
    loss = Distillation(teacher, soft_share=1.0).loss(student, batch)
    assert loss.total.item() == pytest.approx(0, abs=1e-4)
    assert max(g.abs().max() for g in gradients(student, loss).values()) < 1e-4


def test_validation_is_given_the_plain_loss():
    student, batch = tiny().eval(), random_batch()
    found = Distillation(tiny(family="llama")).loss(student, batch)
    torch.testing.assert_close(found.total, CausalLM().loss(student, batch).total)


def test_a_teacher_with_another_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="61 logits and its teacher 67"):
        Distillation(tiny(vocab_size=67)).loss(tiny(), random_batch())
