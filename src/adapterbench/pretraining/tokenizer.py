"""A small CLIP tokenizer: byte-pair encoding trained on the captions."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END, SUFFIX = "<|startoftext|>", "<|endoftext|>", "</w>"


def train(captions: Iterable[str], vocab_size: int, context_length: int) -> CLIPTokenizer:
    """Train a vocabulary of at most `vocab_size` tokens.

    The end token has the highest id, since CLIP pools at the highest id.
    """
    blank = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    learner.normalizer, learner.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # every byte has a token inside and at the end of a word: no text is out of vocabulary
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(alphabet) - 2,
        initial_alphabet=alphabet,
        end_of_word_suffix=SUFFIX,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    learnt = json.loads(learner.to_str())["model"]
    tokens = dict.fromkeys([*alphabet, *(a + SUFFIX for a in alphabet), *learnt["vocab"]])
    vocab = {token: number for number, token in enumerate([*tokens, START, END])}
    merges: Any = [tuple(merge) for merge in learnt["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=context_length)
