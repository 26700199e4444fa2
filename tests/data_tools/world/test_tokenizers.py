"""The worlds' tokenizers read what they were made from."""

import pytest

from data_tools.world.captions import caption
from data_tools.world.scenes import general_scenes
from data_tools.world.things.world import THINGS
from data_tools.world.tokenizers import MAX_TOKENS, bert_tokenizer


def told(language: str) -> list[str]:
    scenes = general_scenes(300, 1, vocabulary=THINGS.vocabulary)
    return [caption(scene, language, THINGS.languages) for scene in scenes]


@pytest.mark.parametrize("language", ["zh", "ja", "ko"])
def test_every_word_is_known_and_every_caption_fits(language):
    texts = told(language)
    tokenizer = bert_tokenizer(texts)
    ids = tokenizer(texts)["input_ids"]
    assert not any(tokenizer.unk_token_id in caption_ids for caption_ids in ids)
    assert max(map(len, ids)) <= MAX_TOKENS["chinese"]
    assert len({tuple(caption_ids) for caption_ids in ids}) == len(set(texts))


def test_the_weak_encoders_tokenizer_knows_no_word_of_several_kana():
    texts = told("ja")
    tokenizer = bert_tokenizer(texts, whole_script=False)
    assert any(tokenizer.unk_token_id in caption_ids for caption_ids in tokenizer(texts)["input_ids"])
