"""The plain HuggingFace model: all its weights or none, and its logits, which every other form of
it has to give again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int

from mechreward.base.errors import require
from mechreward.models.adapter import merged

CAUSAL = ("AutoModelForCausalLM", "AutoModelForImageTextToText")
NAMED = 4  # tensors that a message names before it only counts them


class Plain:
    """Stands in for a HuggingFace class where `from_pretrained` is called.

    Weights that do not fit are refused: transformers fills what is missing with random numbers and
    passes over what is left.

    Parameters
    ----------
    reads : bool
        Whether the model that is loaded reads a short text at once, before anything is built around
        it.
    adapter : Path or None, default None
        An adapter that is merged into it before.

    Attributes
    ----------
    tokens : tensor [1 pos]
        The text: any tokens.
    logits : tensor [1 pos vocab] or None
        What it says there; None if nothing was read.
    """

    LENGTH = 32  # our choice: it costs a large model seconds

    def __init__(self, reads: bool, adapter: Path | None = None) -> None:
        self.reads = reads
        self.adapter = adapter
        self.tokens: Int[torch.Tensor, "1 pos"] = torch.zeros(1, 0, dtype=torch.long)
        self.logits: Float[torch.Tensor, "1 pos vocab"] | None = None

    @torch.no_grad()
    def from_pretrained(self, name: Any, config: Any = None, **options: Any) -> Any:
        """The model.

        Raises
        ------
        MechRewardError
            No causal language model; tensors that are missing, left over, or of another shape; or
            an adapter that does not fit.
        """
        from transformers import AutoConfig

        if config is None:
            config = AutoConfig.from_pretrained(name, revision=options.get("revision"))
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, report = _class_of(config).from_pretrained(name, config=config, **options)
        check_tensors(report)
        if self.adapter:
            model = merged(model, self.adapter)
        if self.reads:
            text = model.config.get_text_config()
            most = getattr(text, "max_position_embeddings", None) or self.LENGTH
            length = min(self.LENGTH, most)
            self.tokens = torch.arange(length)[None] * 7 % text.vocab_size
            device = model.get_input_embeddings().weight.device
            self.logits = model.eval()(self.tokens.to(device)).logits.cpu()
        return model

    def compare(self, logits: Float[torch.Tensor, "1 pos vocab"], whose: str) -> None:
        """Check the logits of another form of the model, at the last positions of the text.

        Raises
        ------
        MechRewardError
            They are other ones, or not finite.
        """
        if self.logits is None:
            return
        wanted = self.logits[:, -logits.shape[1] :].float()
        apart = (logits.float().cpu() - wanted).abs().max()
        off = float(apart / wanted.abs().max())
        require(
            off < (1e-3 if self.logits.dtype == torch.float32 else 0.1),
            f"{whose} it gives other logits than plain HuggingFace (off by {off:.1%} of the "
            "largest); check=False loads it nevertheless",
        )


def _class_of(config: Any) -> Any:
    """The HuggingFace class that TransformerLens takes for this config."""
    from transformer_lens.model_bridge.sources.transformers import (
        get_hf_model_class_for_architecture,
    )

    names = getattr(config, "architectures", None) or [""]
    cls = get_hf_model_class_for_architecture(names[0])
    require(
        cls.__name__ in CAUSAL and not config.is_encoder_decoder,
        f"{names[0] or config.model_type} is no causal language model, and answers are sampled "
        "from left to right",
    )
    return cls


def check_tensors(report: dict[str, Any]) -> None:
    """Raise MechRewardError if the file's tensors are not the model's."""
    others = []
    for key, file, model in report["mismatched_keys"]:
        others.append(f"{key} ({list(file)} for {list(model)})")
    wrong = {
        "missing": report["missing_keys"],
        "left over": report["unexpected_keys"],
        "of another shape": others,
    }
    phrases = [f"{what}: {_names(keys)}" for what, keys in wrong.items() if keys]
    require(not phrases, f"its tensors are not those of its config; {'; '.join(phrases)}")


def _names(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f", ... ({len(names)} in all)" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
