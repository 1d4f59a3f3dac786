"""Every kind of teacher gives the embeddings it should, without gradient, dropout or surprises."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from sentences import ANIMALS, THINGS, VERBS, answer, sentence
from tiny_model import LAYERS, SPECIAL, WIDTH
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from mic.config.schema import TeacherConfig
from mic.encoder.embedding_store import EmbeddingStore
from mic.encoder.encoder import Encoder
from mic.encoder.teacher import Teacher, build_teacher
from mic.errors import InputError

TEXTS = [sentence(1), "cat", f"{sentence(2)} and {answer(2)}", sentence(3), "a dog"]
OTHER_WIDTH = 48
KINDS = ("self", "ema", "frozen", "cached")

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers, 48 wide, whose tokenizer numbers the words the other way round."""
    folder = tmp_path_factory.mktemp("teacher") / "other-bert"
    words = (*SPECIAL, *reversed((*ANIMALS, *VERBS, *THINGS)), "and", "that", "a", "the", "zebra")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=OTHER_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=24,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def build(encoder, model_folder, teacher_folder, tmp_path):
    """Build a teacher of `encoder`, by default the other BERT for `frozen` and `cached`."""

    def build(kind, texts=TEXTS, **settings):
        folder = str(tmp_path / "cache") if kind == "cached" else None
        settings = {"name": str(teacher_folder), "folder": folder, **settings}
        return build_teacher(
            TeacherConfig(kind=kind, **settings), encoder, str(model_folder), texts
        )

    return build


class Holder(nn.Module):
    """A student and its teacher, as the LightningModule holds them."""

    def __init__(self, student: Encoder, teacher: Teacher) -> None:
        super().__init__()
        self.encoder = student
        self.teacher = teacher


def teach(teacher, student, texts=TEXTS):
    """One call of a teacher, as in a training step."""
    tokens = student.tokenize(texts)
    prepared = teacher.prepare(texts) if teacher.prepare else None
    return teacher(tokens, prepared, student(tokens).pooled)


def perturb(encoder, seed):
    """What an optimiser step does to the weights that train."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))


# What they give


def test_no_teacher_is_none(build):
    assert build("none") is None


@every_kind
def test_a_teacher_gives_full_embeddings_without_gradient_in_fp32(build, encoder, kind):
    teacher = build(kind)
    assert teacher.width == (OTHER_WIDTH if kind in ("frozen", "cached") else WIDTH)
    embeddings = teach(teacher, encoder)
    assert embeddings.shape == (len(TEXTS), teacher.width)
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert teach(teacher, encoder).dtype == torch.float32


@every_kind
def test_the_students_gradient_is_the_one_for_a_constant_target(build, encoder, kind):
    teacher, tokens = build(kind), encoder.tokenize(TEXTS)
    prepared = teacher.prepare(TEXTS) if teacher.prepare else None
    constant = teacher(tokens, prepared, encoder(tokens).pooled).detach().clone()
    gradients = []
    for target in (None, constant):
        encoder.zero_grad()
        student = encoder(tokens).pooled
        taught = teacher(tokens, prepared, student) if target is None else target
        (student[:, :16] * taught[:, :16].cos()).sum().backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.requires_grad})
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient)
        assert gradient.any(), name
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_self_is_the_students_own_embedding_with_its_dropout(build, encoder):
    student = encoder.train()(encoder.tokenize(TEXTS)).pooled
    taught = build("self")({}, None, student)
    assert torch.equal(taught, student)
    assert build("self")({}, None, student.bfloat16()).dtype == torch.float32
    assert torch.equal(build("self")({}, None, student.double()), student.double())


def test_ema_begins_as_the_student_without_dropout_and_is_apart_from_it(build, encoder):
    expected = encoder.embed(TEXTS)
    encoder.train()
    teacher = build("ema")
    perturb(encoder, 0)
    torch.testing.assert_close(teach(teacher, encoder), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [None, "other"])
def test_frozen_is_another_encoder_with_its_own_tokenizer(
    build, encoder, model_folder, teacher_folder, name
):
    folder = teacher_folder if name else model_folder  # without a name, the student's
    teacher = build("frozen", name=str(teacher_folder) if name else None)
    expected = Encoder.from_pretrained(folder, max_length=32).embed(TEXTS)
    perturb(encoder, 0)
    torch.testing.assert_close(teach(teacher, encoder), expected, rtol=1e-5, atol=1e-6)


def test_cached_is_frozen_to_the_precision_of_float16(build, encoder):
    frozen = teach(build("frozen"), encoder)
    teacher = build("cached")
    assert teacher.prepare(TEXTS).dtype == torch.float16
    embeddings = teach(teacher, encoder)
    torch.testing.assert_close(embeddings, frozen, rtol=2**-10, atol=1e-6)
    assert not torch.equal(embeddings, frozen)
    assert list(teacher.children()) == list(teacher.parameters()) == []


def test_cached_goes_to_the_students_device(build, encoder):
    teacher = build("cached")
    student = torch.empty(len(TEXTS), WIDTH, device="meta")
    assert teacher({}, teacher.prepare(TEXTS), student).device.type == "meta"


@pytest.mark.parametrize("kind", ["frozen", "cached"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pooling": "cls"}, {"pooling": "cls", "max_length": 24}),
        ({"max_length": 4}, {"max_length": 4}),
        ({"max_length": 400}, {"max_length": 24}),  # the teacher has no more positions
        ({}, {"max_length": 24}),  # nor for the student's 32
    ],
)
def test_pooling_and_length_are_the_teachers(
    build, encoder, teacher_folder, kind, settings, expected
):
    texts = [" and ".join(sentence(n) for n in range(m, m + 6)) for m in range(4)]
    other = Encoder.from_pretrained(teacher_folder, **expected)
    teacher = build(kind, texts, **settings)
    if kind == "frozen":
        assert teacher.prepare(texts)["input_ids"].shape[1] == expected["max_length"]
    embeddings = teach(teacher, encoder, texts)
    torch.testing.assert_close(embeddings, other.embed(texts), rtol=2**-10, atol=1e-5)


def test_without_a_length_of_its_own_the_teacher_keeps_as_much_as_the_student(
    encoder, teacher_folder
):
    config = TeacherConfig(kind="frozen", name=str(teacher_folder))
    teacher = build_teacher(config, encoder, "", max_length=7)
    assert teacher.prepare(["the cat " * 20])["input_ids"].shape[1] == 7


@every_kind
def test_a_teacher_stays_in_eval_mode(build, encoder, kind):
    teacher = build(kind)
    holder = Holder(encoder, teacher).train()
    assert holder.training
    assert holder.encoder.training
    assert not any(module.training for module in teacher.modules())
    if kind != "self":
        assert torch.equal(teach(teacher, encoder), teach(teacher, encoder))


# The moving average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
def test_ema_is_the_closed_form_of_the_students_weights(build, encoder, decay):
    encoder.freeze(embeddings=False, layers=1)
    teacher = build("ema", decay=decay)
    history = [{n: p.detach().double().clone() for n, p in encoder.named_parameters()}]
    for step in range(5):
        perturb(encoder, step)
        teacher.step(encoder)
        history.append({n: p.detach().double().clone() for n, p in encoder.named_parameters()})
    for name, average in teacher.encoder.named_parameters():
        # decay^5 p_0 + (1 - decay) * sum of decay^(5 - i) p_i
        expected = decay**5 * history[0][name]
        for i in range(1, 6):
            expected = expected + (1 - decay) * decay ** (5 - i) * history[i][name]
        torch.testing.assert_close(average.double(), expected, rtol=1e-6, atol=1e-6)
        assert not average.requires_grad
    assert any(not torch.equal(p, history[0][n]) for n, p in teacher.encoder.named_parameters())


def test_ema_follows_frozen_weights_and_buffers_as_well(build, encoder):
    encoder.requires_grad_(False)
    teacher = build("ema", decay=0.5)
    with torch.no_grad():
        encoder.backbone.embeddings.word_embeddings.weight.fill_(1.0)
        encoder.backbone.embeddings.position_ids += 2
    start = teacher.encoder.backbone.embeddings.word_embeddings.weight.clone()
    teacher.step(encoder)
    averages = teacher.encoder.backbone.embeddings
    torch.testing.assert_close(averages.word_embeddings.weight, (start + 1) / 2)
    assert torch.equal(averages.position_ids, encoder.backbone.embeddings.position_ids)


def test_a_step_leaves_the_student_as_it_is(build, encoder):
    teacher = build("ema")
    perturb(encoder, 0)
    before = copy.deepcopy(encoder.state_dict())
    teacher.step(encoder)
    teach(teacher, encoder)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("kind", ["self", "frozen", "cached"])
def test_a_step_moves_no_other_teacher(build, encoder, kind):
    teacher, tokens = build(kind), encoder.tokenize(TEXTS)
    prepared, student = teacher.prepare and teacher.prepare(TEXTS), encoder(tokens).pooled
    before = teacher(tokens, prepared, student)
    perturb(encoder, 0)
    teacher.step(encoder)
    assert torch.equal(teacher(tokens, prepared, student), before)


def test_ema_of_a_watched_student_keeps_hidden_states_of_its_own(build, encoder):
    encoder.watch(range(LAYERS + 1))
    teacher, tokens = build("ema"), encoder.tokenize(TEXTS)
    perturb(encoder, 0)
    expected = teacher.encoder.backbone(**tokens, output_hidden_states=True).hidden_states
    for layer, hidden in teacher.encoder(tokens, range(LAYERS + 1)).hidden.items():
        assert torch.equal(hidden, expected[layer])
    student = encoder(tokens, [1])
    teacher(tokens, None, student.pooled)
    assert encoder._hidden == teacher.encoder._hidden == {}
    assert student.hidden[1].requires_grad
    assert not torch.equal(student.hidden[1], expected[1])


def test_ema_of_a_compiled_student_has_its_names(build, encoder):
    encoder.backbone.compile(backend=lambda graph, _: graph.forward)
    teacher = build("ema")
    assert list(teacher.encoder.state_dict()) == list(encoder.state_dict())
    assert teach(teacher, encoder).shape == (len(TEXTS), WIDTH)
    torch._dynamo.reset()


# Checkpoints, devices, processes


def test_ema_is_in_the_checkpoint_and_comes_back(build, encoder, model_folder):
    teacher = build("ema", decay=0.5)
    for step in range(3):
        perturb(encoder, step)
        teacher.step(encoder)
    state = copy.deepcopy(Holder(encoder, teacher).state_dict())
    fresh = Encoder.from_pretrained(model_folder, max_length=32)
    other = build_teacher(TeacherConfig(kind="ema", decay=0.5), fresh, "")
    Holder(fresh, other).load_state_dict(state, strict=True)
    assert torch.equal(teach(other, fresh), teach(teacher, encoder))
    for taught_by, student in ((teacher, encoder), (other, fresh)):
        perturb(student, 9)
        taught_by.step(student)
    assert torch.equal(teach(other, fresh), teach(teacher, encoder))


@pytest.mark.parametrize("kind", ["self", "frozen", "cached"])
def test_no_other_teacher_is_in_the_checkpoint(build, encoder, kind):
    holder = Holder(encoder, build(kind))
    expected = teach(holder.teacher, encoder.eval())
    state = holder.state_dict()
    assert list(state) == [f"encoder.{name}" for name in encoder.state_dict()]
    other = Holder(encoder, build(kind))
    assert other.load_state_dict(state, strict=True) == ([], [])
    assert torch.equal(teach(other.teacher, encoder), expected)


@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_a_teacher_moves_with_the_module_that_holds_it(build, encoder, kind):
    teacher = build(kind)
    holder = Holder(encoder, teacher).double()
    assert holder.teacher is teacher
    assert teach(teacher, encoder).dtype == torch.float64
    holder.to("meta")
    network = teacher.encoder if kind == "ema" else teacher._held[0]
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


@every_kind
def test_nothing_of_a_teacher_is_trained(build, encoder, kind):
    teacher = build(kind)
    trained = [p for p in Holder(encoder, teacher).parameters() if p.requires_grad]
    assert len(trained) == len([p for p in encoder.parameters() if p.requires_grad])
    if kind == "frozen":
        other = teacher._held[0]
        assert not any(p.requires_grad for p in other.parameters())


@pytest.mark.parametrize("kind", ["frozen", "cached"])
def test_workers_prepare_texts_without_any_weights(build, encoder, kind):
    teacher = build(kind)
    weights = OTHER_WIDTH * OTHER_WIDTH * 4  # the bytes of one of the smallest matrices
    assert len(pickle.dumps(teacher.prepare)) < weights
    loader = DataLoader(TEXTS, batch_size=2, num_workers=2, collate_fn=teacher.prepare)
    batches = zip(loader, (2, 2, 1), strict=True)
    embeddings = [teacher({}, prepared, torch.empty(size, WIDTH)) for prepared, size in batches]
    torch.testing.assert_close(torch.cat(embeddings), teach(teacher, encoder), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["self", "ema"])
def test_teachers_with_the_students_tokens_prepare_nothing(build, kind):
    assert build(kind).prepare is None


# The cache of a cached teacher


def test_a_second_teacher_encodes_nothing(build, encoder, monkeypatch):
    encoded, embed = [], Encoder.embed
    monkeypatch.setattr(
        Encoder, "embed", lambda self, some, **o: encoded.extend(some) or embed(self, some, **o)
    )
    first = teach(build("cached"), encoder)
    assert len(encoded) == len(TEXTS)
    assert torch.equal(teach(build("cached"), encoder), first)
    assert len(encoded) == len(TEXTS)


def test_the_cache_is_in_the_named_folder_or_the_users(build, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MIC_CACHE", str(tmp_path / "mine"))
    build("cached", folder="~/own")
    assert len(EmbeddingStore(tmp_path / "own")) == len(TEXTS)
    build("cached", folder=None)
    (folder,) = (tmp_path / "mine" / "teachers-2").iterdir()
    assert len(EmbeddingStore(folder)) == len(TEXTS)


@pytest.mark.parametrize("settings", [{"pooling": "cls"}, {"max_length": 5}, {"name": None}])
def test_a_named_folder_of_another_teacher_is_refused(build, settings):
    build("cached")
    with pytest.raises(InputError, match=r"of the model .*; remove the folder"):
        build("cached", **settings)


def test_the_batch_size_is_the_configs(build, monkeypatch):
    sizes, embed = [], Encoder.embed
    monkeypatch.setattr(
        Encoder, "embed", lambda self, some, **o: sizes.append(len(some)) or embed(self, some, **o)
    )
    build("cached", batch_size=2)
    assert sizes == [2, 2, 1]


# Bad input


@pytest.mark.parametrize("kind", ["frozen", "cached"])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "/no/such/folder"}, r"teacher.name=/no/such/folder: encoder .*no Hub name"),
        ({"name": "package:nothing_there"}, r"teacher.name=package:nothing_there: .*pip install"),
        (
            {"sha256": "0" * 64},
            r"teacher.name=.*other-bert: .*expected 000.*correct teacher.sha256",
        ),
    ],
)
def test_a_teacher_that_cannot_be_loaded_is_named(build, kind, settings, says):
    with pytest.raises(InputError, match=says):
        build(kind, **settings)


def test_a_kind_that_does_not_exist_is_refused(encoder):
    config = TeacherConfig()
    config.kind = "teached"
    with pytest.raises(InputError, match=r"teacher.kind 'teached': choose none or self or ema"):
        build_teacher(config, encoder, "")


def test_embeddings_and_tokens_are_not_mistaken_for_each_other(build, encoder):
    frozen, cached, student = build("frozen"), build("cached"), torch.empty(5, WIDTH)
    for teacher, prepared in ((frozen, cached.prepare(TEXTS)), (frozen, None), (cached, None)):
        with pytest.raises(TypeError, match=r"prepared is .*; give the .* that teacher.prepare"):
            teacher({}, prepared, student)


def test_a_cached_teacher_that_was_not_given_a_text_names_it(build):
    with pytest.raises(InputError, match="no embedding of the text 'a zebra'; start again"):
        build("cached").prepare(["cat", "a zebra"])
