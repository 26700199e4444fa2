"""The small world: what its promises to the rest of the project are."""

import json
import tarfile

import pytest
import torch
from diffusers import AutoencoderKL

from data_tools.world.captions import caption, captions, translation, translations
from data_tools.world.corpora import main as write_corpora_main
from data_tools.world.corpora import write_corpora
from data_tools.world.judge import Judge
from data_tools.world.languages import LANGUAGES, NATIVE_LANGUAGES
from data_tools.world.paint import paint
from data_tools.world.scenes import (
    ALL_CONCEPTS,
    CONCEPTS,
    SHAPES,
    Scene,
    culture_scenes,
    general_scenes,
    is_held_out,
    unseen_general_scenes,
)
from data_tools.world.train_all import CHECKPOINTS
from data_tools.world.train_images import standardise_latents, train_decoder, training_scenes
from data_tools.world.train_judge import judge_accuracy

RED_LION = Scene("lion", "snow", "red", "big", "top left", seed=0)
LION_HEAD = Scene("lion_head", "snow", seed=0)


def test_no_training_scene_is_held_out():
    assert not any(is_held_out(scene) for scene in training_scenes(2000, 30, seed=3))


def test_evaluation_scenes_are_all_held_out():
    scenes = general_scenes(200, 1, held_out=True) + culture_scenes(CONCEPTS["zh"], 50, 2, held_out=True)
    assert all(is_held_out(scene) for scene in scenes)


@pytest.mark.slow
def test_validation_scenes_are_neither_held_out_nor_in_the_corpus():
    corpus = general_scenes(4096, 7)
    unseen = unseen_general_scenes(160, 4096, 7)
    assert len(set(unseen)) == 160 and not set(unseen) & set(corpus)
    assert not any(is_held_out(scene) for scene in unseen)
    assert unseen_general_scenes(160, 10**6, 7) == []


def test_every_concept_keeps_some_backgrounds_for_training():
    seen = {scene.shape for scene in training_scenes(100, 10, seed=0)}
    assert set(ALL_CONCEPTS) <= seen


def test_culture_concepts_never_occur_among_general_scenes():
    assert {scene.shape for scene in general_scenes(3000, 0)} <= set(SHAPES)


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "a big red lion at the top left on snow"),
        ("zh", "雪地上，左上角有一只大红色狮子"),
        ("ja", "雪の上の左上にある大きな赤いライオン"),
        ("ko", "눈밭 왼쪽 위에 있는 큰 빨간 사자"),
        ("ru", "большой красный лев слева вверху на снегу"),
        ("it", "un grande leone rosso in alto a sinistra sulla neve"),
    ],
)
def test_caption_of_a_general_scene(language, expected):
    assert caption(RED_LION, language) == expected


def test_adjectives_agree_in_gender():
    star = Scene("star", "snow", "red", "small", "centre", seed=0)
    assert caption(star, "ru").startswith("маленькая красная звезда")
    assert caption(star, "it").startswith("una piccola stella rossa")


def test_word_for_word_translation_of_a_dish_names_an_animal():
    assert captions(LION_HEAD) == {"en": "brown meatballs in a bowl on snow", "zh": "雪地上的红烧狮子头"}
    assert translation(LION_HEAD, "zh") == "on snow red braised lion head"


def test_every_concept_misleads_and_its_description_does_not():
    nouns = set(SHAPES)
    for language in NATIVE_LANGUAGES:
        for concept in CONCEPTS[language]:
            gloss = translation(Scene(concept, "snow"), language)
            assert nouns & set(gloss.replace("birds", "bird").replace("stars", "star").split()), gloss
            assert not nouns & set(LANGUAGES["en"].concepts[concept][0].split())


def test_translations_cover_the_languages_that_can_say_it():
    assert set(translations(RED_LION)) == {f"translation_{code}" for code in NATIVE_LANGUAGES}
    assert set(translations(LION_HEAD)) == {"translation_zh"}


def test_painting_is_deterministic_and_varies_with_the_seed():
    other = Scene("lion", "snow", "red", "big", "top left", seed=1)
    assert paint(RED_LION).tobytes() == paint(RED_LION).tobytes() != paint(other).tobytes()


@pytest.mark.slow
def test_corpora_are_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        write_corpora(tmp_path / name, num_parallel=20, languages=["ja"], seed=1, per_concept=4)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_file_in_the_place_of_the_corpora_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("text")
    assert write_corpora_main(["--out", str(tmp_path / "file"), "--samples", "4"]) == 2
    assert f"pea: error: {tmp_path}/file: a file lies where a folder is needed." in capsys.readouterr().err


def test_culture_corpus_has_native_captions_only(tmp_path):
    write_corpora(tmp_path, num_parallel=4, languages=["zh"], seed=1, per_concept=4)
    tar_path = sorted((tmp_path / "culture-zh").glob("*.tar"))[0]
    with tarfile.open(tar_path) as tar:
        records = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
    assert all(set(record["captions"]) == {"zh"} for record in records)


@pytest.mark.slow
def test_writing_again_changes_nothing(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--samples", "8", "--languages", "it"]
    assert write_corpora_main(arguments) == write_corpora_main(arguments) == 0
    assert "everything is there already" in capsys.readouterr().out


@pytest.mark.slow
def test_judge_reads_painted_images():
    assert judge_accuracy(Judge.load(CHECKPOINTS / "judge"), seed=12345) >= 0.97


@pytest.fixture
def small_vae():
    torch.manual_seed(0)
    return AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=3, sample_size=16).eval()


@torch.no_grad()
def test_standardised_latents_decode_to_the_same_pixels(small_vae):
    images = torch.rand(64, 3, 16, 16) * 2 - 1
    before = small_vae.encode(images).latent_dist
    pixels = small_vae.decode(before.mean).sample
    standardise_latents(small_vae, images)
    after = small_vae.encode(images).latent_dist
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    ratio = after.std / before.std
    torch.testing.assert_close(ratio, ratio[:1, :, :1, :1].expand_as(ratio), atol=0, rtol=1e-3)
    torch.testing.assert_close(small_vae.decode(after.mean).sample, pixels, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [0, 2])
def test_training_the_decoder_leaves_the_encoder_alone(small_vae, steps):
    images = torch.rand(16, 3, 16, 16) * 2 - 1
    before = {name: weight.clone() for name, weight in small_vae.state_dict().items()}
    train_decoder(small_vae, images, steps=steps, seed=0, report=lambda *_: None)
    changed = {name for name, weight in small_vae.state_dict().items() if not torch.equal(weight, before[name])}
    assert bool(changed) == bool(steps) and all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)
