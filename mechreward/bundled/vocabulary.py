"""The word-level vocabulary of the bundled models, and tokenizers in HuggingFace form."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mechreward.tasks.lines import LARGEST
from mechreward.tasks.paths import NODES

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "\n"]
WORDS += "countdown chain paths from to back answer fail + - * / = ( ) :".split()
WORDS += [*NODES, *map(str, range(LARGEST + 1))]
WORDS += [f"{a}>{b}" for a in NODES for b in NODES if a != b]


def tokenizer(vocabulary: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """Words are split at spaces; a line break is a word. Encoding puts `<bos>` in front.

    A word outside the vocabulary becomes `<unk>`. `vocabulary` begins with the five special words
    of `WORDS`.
    """
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    words.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    words.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(r"^(?=\S)"), " "),
            decoders.Fuse(),
            decoders.Replace("\n ", "\n"),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
