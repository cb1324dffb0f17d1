"""Model families, by structure: groups are found, costs are exact, and a student is trained, saved and loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from compressors.api import compress
from compressors.apply import student_of
from compressors.calibration import calibrate
from compressors.distill.batches import Encoded, collate
from compressors.distill.targets import prepare_targets
from compressors.distill.trainer import Budget, distil
from compressors.factors import Factors, Words
from compressors.meter import random_inputs
from compressors.modeling_paredown import ParedownPreTrainedModel
from compressors.saving import load, save_student, weights_bytes
from compressors.signature import config_dict, signature_of
from spaces.cost import cost, teacher_cost
from spaces.errors import UserError
from spaces.groups import find_groups, find_ungrouped
from spaces.plan import Distillation, Structure, Student
from spaces.signature import Signature, read_signature

BLOCK_KINDS = ("qkv", "attn_out", "ffn_in", "ffn_out")
CASES = [
    ("bert", "MaskedLM"),
    ("roberta", "SequenceClassification"),
    ("xlm-roberta", "TokenClassification"),
    ("distilbert", "QuestionAnswering"),
    ("electra", "SequenceClassification"),
    ("albert", "SequenceClassification"),
    ("albert", "MaskedLM"),
    ("mpnet", "none"),
    ("deberta", "SequenceClassification"),
    ("deberta", "MaskedLM"),
    ("modernbert", "MaskedLM"),
    ("gpt2", "CausalLM"),
    ("llama", "CausalLM"),
    ("qwen", "CausalLM"),
    ("qwen", "SequenceClassification"),
    ("t5", "TokenClassification"),
    ("t5", "SequenceClassification"),
    ("bart", "SequenceClassification"),
    ("gpt-neox", "SequenceClassification"),
    ("nomic", "MaskedLM"),
]
Maker = Callable[..., PreTrainedModel]
Drawer = Callable[..., Student]


@pytest.fixture(params=CASES, ids=["-".join(case) for case in CASES])
def teacher(request: pytest.FixtureRequest, make_teacher: Maker) -> PreTrainedModel:
    return make_teacher(*request.param)


def has_two_stacks(teacher: PreTrainedModel) -> bool:
    return signature_of(teacher).stacks == 2


def rows_of(teacher: PreTrainedModel, seed: int = 0) -> Encoded:
    """Return texts of 3 to 12 words with labels as the teacher's task has them."""
    rng = np.random.default_rng(seed)
    ids = tuple(rng.integers(5, 119, rng.integers(3, 13)).astype(np.int32) for _ in range(12))
    for row in ids if has_two_stacks(teacher) else ():
        row[-1] = teacher.config.eos_token_id  # where T5 and BART classify
    name = type(teacher).__name__
    if name.endswith(("MaskedLM", "CausalLM", "LMHeadModel")):
        return Encoded(ids, labels=ids, level="token", problem="language")
    if name.endswith("TokenClassification"):
        return Encoded(ids, labels=tuple(row % 2 for row in ids), level="token")
    if name.endswith("QuestionAnswering"):
        return Encoded(ids, labels=np.tile([0, 1], (12, 1)), level="span")
    return Encoded(ids, labels=np.zeros(12, np.int64), problem="" if "For" in name else "embedding")


def test_every_matrix_of_a_block_has_its_group_and_nothing_is_left_over(teacher: PreTrainedModel) -> None:
    signature = signature_of(teacher)
    kinds = Counter(group.kind for group in find_groups(signature))
    blocks = 1 if signature.model_type == "albert" else 2 * signature.stacks
    assert signature.layers == blocks
    assert {kind: kinds[kind] for kind in BLOCK_KINDS} == dict.fromkeys(BLOCK_KINDS, blocks)
    assert kinds["embedding"] == 1
    assert find_ungrouped(signature).sentence() == ""


@pytest.mark.parametrize("tokens", [8, 16])
def test_flops_are_those_that_torch_counts(teacher: PreTrainedModel, tokens: int) -> None:
    ids = torch.from_numpy(random_inputs(teacher, 1, tokens)["input_ids"])
    eager = type(teacher)._from_config(teacher.config, attn_implementation="eager").eval()  # type: ignore[no-untyped-call]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        eager(input_ids=ids, attention_mask=torch.ones_like(ids))
    # decoders run their small head on every token, and read the last one's answer
    assert teacher_cost(signature_of(teacher), sequence_length=tokens).flops == pytest.approx(
        counter.get_total_flops(), rel=0.006
    )


@pytest.mark.parametrize("objective", ["logits+hidden+attention", "relations"])
def test_a_student_is_compressed_trained_saved_and_loaded(
    teacher: PreTrainedModel, random_student: Drawer, tmp_path: Path, objective: str
) -> None:
    signature, rows = signature_of(teacher), rows_of(teacher)
    plan = random_student(signature, seed=3)
    student = compress(teacher, plan)
    objective = "logits+hidden" if signature.stacks > 1 else objective  # a decoder's block has two attentions
    settings = Distillation(objective, learning_rate=1e-3)
    targets = prepare_targets(
        rows, names_of(settings, signature, rows), None, teacher=lambda: teacher, signature=signature
    )
    before = [p.detach().clone() for p in student.parameters()]
    result = distil(student, rows, targets, settings, Budget(3, (1.0,), 4), seed=0)
    assert np.isfinite(result.loss_curve).all()
    assert sum(not torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True)) > len(before) / 2
    save_student(student, tmp_path / "student")
    assert weights_bytes(tmp_path / "student") == cost(plan, signature, sequence_length=8).file_bytes
    again = load(tmp_path / "student")
    for ours, theirs in zip(outputs(student, rows), outputs(again, rows), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def names_of(settings: Distillation, signature: Signature, rows: Encoded) -> tuple[str, ...]:
    from compressors.distill.objective import needed_for

    return needed_for(settings, signature.layers, signature.layers, rows.level)


def outputs(model: ParedownPreTrainedModel, rows: Encoded) -> list[torch.Tensor]:
    batch = collate(rows, np.arange(4))
    with torch.no_grad():
        return [value for value in model.eval()(**batch.inputs).values() if isinstance(value, torch.Tensor)]


def test_every_matrix_that_a_plan_may_compress_is_calibrated(teacher: PreTrainedModel) -> None:
    signature, rows = signature_of(teacher), rows_of(teacher)
    calibration = calibrate(teacher, [collate(rows, np.arange(12)).inputs], seed=0, bf16=False)
    for group in find_groups(signature):
        for module in group.modules if group.kind != "pooler" else ():  # embeddings are read before it
            assert calibration.uses(module.path) > 0, module.path


STACKED = [("t5", "SequenceClassification"), ("bart", "SequenceClassification")]


@pytest.mark.parametrize(("family", "task"), STACKED)
def test_a_decoders_blocks_are_numbered_on_and_look_at_the_encoder_in_the_same_groups(
    family: str, task: str, make_teacher: Maker, tmp_path: Path
) -> None:
    teacher = make_teacher(family, task)
    signature = signature_of(teacher)
    teacher.save_pretrained(tmp_path)
    assert read_signature(tmp_path) == signature
    sizes = {group.name: len(group.modules) for group in find_groups(signature)}
    assert {block: sizes[f"block.{block}.qkv"] for block in range(4)} == {0: 3, 1: 3, 2: 6, 3: 6}
    assert [sizes[f"block.{block}.attn_out"] for block in range(4)] == [1, 1, 2, 2]
    for module in signature.modules:
        assert module.block is None or (module.block >= 2) == (".decoder." in module.path)


@pytest.mark.parametrize(("family", "task"), STACKED)
def test_blocks_and_heads_of_an_encoder_and_a_decoder_stay(family: str, task: str, make_teacher: Maker) -> None:
    teacher = make_teacher(family, task)
    signature = signature_of(teacher)
    for structure, sentence in (
        (Structure(layers=2), "layers cannot be cut, because a decoder reads"),
        (Structure(heads=(2, 2, 2, 2)), "heads cannot be cut"),
    ):
        with pytest.raises(UserError, match=sentence):
            compress(teacher, Student.of(signature.hash, {}, structure=structure))


def test_units_of_an_encoder_and_a_decoder_are_cut(make_teacher: Maker, tmp_path: Path) -> None:
    teacher = make_teacher("t5")
    plan = Student.of(signature_of(teacher).hash, {}, structure=Structure(ffn=(64, 32, 16, 48)))
    save_student(compress(teacher, plan), tmp_path / "student")
    expected = cost(plan, signature_of(teacher), sequence_length=8)
    assert weights_bytes(tmp_path / "student") == expected.file_bytes
    inputs = {name: torch.from_numpy(array) for name, array in random_inputs(teacher, 1, 8).items()}
    student = load(tmp_path / "student")
    student.model.set_attn_implementation("eager")  # torch counts no fused kernel
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        student(**inputs)
    assert expected.flops_linear < counter.get_total_flops() <= expected.flops


@pytest.mark.parametrize(("family", "task"), [*STACKED, ("t5", "TokenClassification")])
def test_tables_that_share_their_words_share_a_short_table(
    family: str, task: str, make_teacher: Maker, tmp_path: Path
) -> None:
    teacher = make_teacher(family, task)
    rows = rows_of(teacher)
    used = sorted({0, *rows.flat_ids.tolist()})  # 0 stands for padding, and where a decoder starts
    factors = Factors.of_model(teacher, words=Words(lambda: used, unknown=used[-1]))
    student = student_of(Student.of("", {}, structure=Structure(vocabulary=len(used))), config_dict(teacher), factors)
    inputs = collate(rows, np.arange(4)).inputs
    with torch.no_grad():
        torch.testing.assert_close(student(**inputs).logits, teacher(**inputs).logits, atol=1e-5, rtol=0)
    save_student(student, tmp_path / "student")
    for ours, theirs in zip(outputs(student, rows), outputs(load(tmp_path / "student"), rows), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("objective", ["logits+hidden+attention", "relations"])
def test_what_looks_at_one_attention_of_a_block_is_refused_where_there_are_two(
    objective: str, make_teacher: Maker
) -> None:
    teacher = make_teacher("t5")
    signature, rows = signature_of(teacher), rows_of(teacher)
    names = names_of(Distillation(objective), signature, rows)
    with pytest.raises(UserError, match=r"distillation\.objective: .* allowed objectives: .*logits\+hidden$"):
        prepare_targets(rows, names, None, teacher=lambda: teacher, signature=signature)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_and_a_decoder_that_do_not_classify_are_refused_in_a_sentence(
    family: str, make_teacher: Maker
) -> None:
    teacher = make_teacher(family, "none")
    with pytest.raises(UserError, match=r"has 2 stacks of blocks .*; allowed: models of one, and of an encoder and"):
        compress(teacher, Student.of(signature_of(teacher).hash, {}))


def test_an_unknown_architecture_is_compressed_matrix_by_matrix_and_says_what_has_no_group(
    make_teacher: Maker, random_student: Drawer, tmp_path: Path
) -> None:
    teacher = make_teacher("funnel", "TokenClassification")
    signature, rows = signature_of(teacher), rows_of(teacher)
    said = find_ungrouped(signature).sentence()
    assert "of the weights stay as they are" in said
    student = compress(teacher, random_student(signature, seed=1))
    result = distil(student, rows, None, Distillation("labels"), Budget(2, (1.0,), 4), seed=0)
    assert np.isfinite(result.loss_curve).all()
    save_student(student, tmp_path / "student")
    for ours, theirs in zip(outputs(student, rows), outputs(load(tmp_path / "student"), rows), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_repeated_blocks_are_stored_once_and_run_twice(make_teacher: Maker) -> None:
    twice, once = (signature_of(make_teacher("albert", num_hidden_layers=2 * n, num_hidden_groups=1)) for n in (2, 1))
    assert (twice.repeats, once.repeats) == (4, 2)
    a, b = (teacher_cost(signature, sequence_length=8) for signature in (twice, once))
    assert a.params == b.params
    assert a.flops_linear > 1.9 * b.flops_linear
    assert Signature.from_json(twice.to_json()) == twice
    assert "repeats" not in signature_of(make_teacher("bert")).as_dict()
