"""Tiny random captioning models of the real classes."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    PreTrainedTokenizerFast,
)

_WORDS = ["a", "red", "green", "blue", "cat", "dog", "on", "grass", "snow", "photo", "of", "big", "small"]
_SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_blip(folder: Path, seed: int = 0) -> Path:
    """BLIP's class for captions."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *_WORDS]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)}, bos_token="[DEC]")
    size = {"height": 16, "width": 16}
    BlipProcessor(BlipImageProcessorPil(size=size), tokenizer).save_pretrained(folder)
    torch.manual_seed(seed)
    text = {**_SIZES, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 24}
    text |= {"bos_token_id": 5, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 3, "initializer_range": 0.5}
    vision = {**_SIZES, "image_size": 16, "patch_size": 8, "initializer_range": 0.5}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=8, image_text_hidden_size=8)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    return folder


def make_florence2(folder: Path, seed: int = 0) -> Path:
    """Florence-2's class."""
    asked = ["Describe", "in", "detail", "what", "is", "shown", "the", "image."]
    words = ["<s>", "<pad>", "</s>", "<unk>", "<image>", *asked, *_WORDS]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    side = {"height": 16, "width": 16}
    images = CLIPImageProcessorPil(size=side, crop_size=side, do_center_crop=False)
    images.image_seq_length = 5
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    torch.manual_seed(seed)
    text = {"vocab_size": len(words), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    text |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}
    text |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.5, "model_type": "bart"}
    text |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    vision = {"depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1]}
    vision |= {"patch_prenorm": [False, True], "embed_dim": [8, 16], "num_heads": [2, 2], "num_groups": [2, 2]}
    vision |= {"window_size": 2, "projection_dim": 16, "max_position_embeddings": 8, "drop_path_rate": 0.0}
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=4)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    return folder
