"""The tokenizer learnt on captions: any text goes in and comes back."""

from pathlib import Path

import pytest
from toy_backbone import CLIP_PARAMS, toy_samples, toy_tokenizer
from transformers import CLIPTokenizer

from adapterbench.pretraining import tokenizer
from adapterbench.pretraining.clip import tokenize

CAPTIONS = [text for sample in toy_samples() for text in sample.captions]


@pytest.fixture(scope="module")
def learnt() -> CLIPTokenizer:
    return toy_tokenizer()


def words(vocabulary: CLIPTokenizer, text: str) -> list[str]:
    return vocabulary.tokenize(text)


def test_captions_come_back(learnt: CLIPTokenizer) -> None:
    for text in CAPTIONS:
        ids = learnt(text).input_ids
        # as with every CLIP tokenizer, punctuation comes back with spaces around it
        assert (
            str(learnt.decode(ids, skip_special_tokens=True)).split()
            == text.replace(",", " ,").split()
        )


@pytest.mark.parametrize("text", ["ünïcödé", "漢字", "✨🦄", "\x07", "Ω≈ç", "zyxwvu 0123 %$#"])
def test_unseen_characters_are_bytes_and_never_unknown(learnt: CLIPTokenizer, text: str) -> None:
    ids = learnt(text, add_special_tokens=False).input_ids
    assert ids
    assert max(ids) < len(learnt) - 2  # neither the start nor the end token
    assert str(learnt.decode(ids)).replace(" ", "") == text.replace(" ", "").lower()


def test_case_and_spaces_do_not_matter(learnt: CLIPTokenizer) -> None:
    assert words(learnt, "A  Red\nCIRCLE ") == words(learnt, "a red circle")


def test_every_text_has_one_length_between_start_and_end(learnt: CLIPTokenizer) -> None:
    ids = tokenize(["", "a red circle", "many words " * 50], learnt)
    start, end = learnt.bos_token_id, learnt.eos_token_id
    assert ids.shape == (3, CLIP_PARAMS.context_length)
    assert ids[:, 0].tolist() == [start] * 3
    assert ids[0].tolist() == [start] + [end] * 15
    assert ids[2, -1] == end
    # CLIP pools at the highest id, the first of them
    assert end == len(learnt) - 1 == ids.max()
    assert start == end - 1


def test_frequent_words_become_one_token() -> None:
    vocabulary = tokenizer.train(CAPTIONS * 10, 700, 16)
    assert words(vocabulary, "a red circle") == ["a</w>", "red</w>", "circle</w>"]
    assert len(vocabulary) <= 700


def test_learning_is_repeatable() -> None:
    first, second = (tokenizer.train(CAPTIONS, 600, 16) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()


def test_it_loads_as_it_was_saved(learnt: CLIPTokenizer, tmp_path: Path) -> None:
    learnt.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    texts = [*CAPTIONS, "", "ünseen ✨"]
    assert tokenize(texts, loaded).equal(tokenize(texts, learnt))
    assert loaded.model_max_length == 16
