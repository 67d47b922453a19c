"""Miniature models: three published architectures at a small size, with their own tokenizers and processors.

All parts come from transformers: `LlavaOnevision`, `Qwen2.5-VL` and `InternVL`, each with its vision tower, a Qwen2
text model and its processor. A saved folder is an ordinary checkpoint: `AutoProcessor` and
`AutoModelForImageTextToText` load it like a published one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import transformers as hf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from mmrlhf_core.models.policy import Policy, device

ARCHITECTURES = ("llava_onevision", "qwen2_5_vl", "internvl")

END, PAD = "<|im_end|>", "<|endoftext|>"
TEMPLATE_WORDS = ("system", "user", "assistant", "Frame")
PIECE = r" ?[\p{L}\p{N}_]+| ?[^\s\p{L}\p{N}_]|\s"
SPECIAL = {
    "llava_onevision": {"image_token": "<image>", "video_token": "<video>"},
    "qwen2_5_vl": {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    },
    "internvl": {
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
    },
}
MEDIA = {
    "llava_onevision": ("<image>\n", "<video>\n"),
    "qwen2_5_vl": ("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"),
    "internvl": ("<IMG_CONTEXT>\n", "<video>\n"),
}
CHAT = """{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- 'IMAGE' -}}
{%- elif part['type'] == 'video' -%}{{- 'VIDEO' -}}
{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


@dataclass(frozen=True)
class Size:
    """Sizes of a miniature model. `width` and `vision_width` are per token; the head size is width // heads."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    mlp: int = 512
    vision_width: int = 128
    vision_layers: int = 2
    vision_heads: int = 4
    vision_mlp: int = 256
    image: int = 64
    tiles: int = 2
    positions: int = 8192
    tied: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.kv_heads or self.vision_width % self.vision_heads:
            raise ValueError(
                f"width {self.width} must be a multiple of heads {self.heads}, heads a multiple of kv_heads "
                f"{self.kv_heads}, vision_width {self.vision_width} a multiple of vision_heads {self.vision_heads}."
            )
        if self.image % 16 or self.tiles < 1 or self.vision_width // self.vision_heads % 4:
            raise ValueError(
                f"image {self.image} must be a multiple of 16, tiles {self.tiles} at least 1, and the vision head "
                f"size {self.vision_width // self.vision_heads} a multiple of 4."
            )
        if self.width // self.heads % 2:
            raise ValueError(f"The head size {self.width // self.heads} must be even for rotary positions.")


def _known(family: str) -> str:
    if family not in ARCHITECTURES:
        raise ValueError(f"Model family {family!r} is not known. Allowed: {', '.join(ARCHITECTURES)}.")
    return family


def build_tokenizer(family: str, words: Sequence[str]) -> hf.PreTrainedTokenizerFast:
    """Word-level tokenizer: each word of `words` is one token, alone or after a space; other text becomes bytes.

    Decoding restores any Unicode text. A word consists of letters, digits and underscores, or is one other character.
    """
    splitter = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    for word in words:
        if not word or word[0].isspace() or len(splitter.pre_tokenize_str(word)) != 1:
            raise ValueError(f"{word!r} is not one word. Give letters, digits and underscores, or one other character.")
    splitter = pre_tokenizers.Sequence([splitter, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    vocabulary = {piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for word in (*TEMPLATE_WORDS, *words):
        for text in (word, " " + word):
            piece = "".join(part for part, _ in splitter.pre_tokenize_str(text))
            vocabulary.setdefault(piece, len(vocabulary))
    core = Tokenizer(BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    core.pre_tokenizer, core.decoder = splitter, decoders.ByteLevel()
    special = [PAD, "<|im_start|>", END, *SPECIAL[_known(family)].values()]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=SPECIAL[family],
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000,
    )


def _pinpoints(size: Size) -> list[list[int]]:
    """Every canvas of at most `tiles` × `tiles` tiles, as [height, width]."""
    sides = [size.image * (i + 1) for i in range(size.tiles)]
    return [[height, width] for height in sides for width in sides]


def build_processor(family: str, words: Sequence[str], size: Size = Size()) -> hf.ProcessorMixin:
    """The family's own processor with the word-level tokenizer and a chat template for pictures and clips.

    At the default size, a square picture of `size.image` pixels becomes 36 tokens in LLaVA-OneVision (16 of the base
    view, 16 + 4 line ends of the tile), 16 in Qwen2.5-VL, and 16 + 2 marks in InternVL.
    """
    tokenizer = build_tokenizer(family, words)
    image, video = MEDIA[family]
    shared = {"tokenizer": tokenizer, "chat_template": CHAT.replace("IMAGE", image).replace("VIDEO", video)}
    square = {"height": size.image, "width": size.image}
    scale = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    if family == "llava_onevision":
        return hf.LlavaOnevisionProcessor(
            image_processor=hf.LlavaOnevisionImageProcessor(
                size=square, image_grid_pinpoints=_pinpoints(size), **scale
            ),
            video_processor=hf.LlavaOnevisionVideoProcessor(size=square, **scale),
            num_image_tokens=(size.image // 16) ** 2,
            vision_feature_select_strategy="full",
            **shared,
        )
    if family == "qwen2_5_vl":
        area = {"shortest_edge": 16 * 16, "longest_edge": (size.image * size.tiles) ** 2}
        patches = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
        return hf.Qwen2_5_VLProcessor(
            image_processor=hf.Qwen2VLImageProcessor(size=area, **patches, **scale),
            video_processor=hf.Qwen2VLVideoProcessor(
                size=area, do_sample_frames=False, cap_pixels_per_frame=False, **patches, **scale
            ),
            **shared,
        )
    return hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=square, crop_to_patches=True, max_patches=size.tiles**2, **scale),
        video_processor=hf.InternVLVideoProcessor(size=square, do_sample_frames=False, **scale),
        image_seq_length=(size.image // 16) ** 2,
        **shared,
    )


def _text(size: Size, tokenizer: hf.PreTrainedTokenizerFast) -> dict:
    """Keyword arguments shared by the three Qwen2 text configurations."""
    return {
        "vocab_size": -(-len(tokenizer) // 8) * 8,
        "hidden_size": size.width,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": size.positions,
        "tie_word_embeddings": size.tied,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def build_config(family: str, processor: hf.ProcessorMixin, size: Size = Size()) -> hf.PreTrainedConfig:
    """The family's configuration at `size`, with the token ids of `processor`."""
    token, text = processor.tokenizer, _text(size, processor.tokenizer)
    vision = {
        "hidden_size": size.vision_width,
        "intermediate_size": size.vision_mlp,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_heads,
    }
    if _known(family) == "llava_onevision":
        siglip = hf.SiglipVisionConfig(image_size=size.image, patch_size=16, vision_use_head=False, **vision)
        return hf.LlavaOnevisionConfig(
            vision_config=siglip,
            text_config=hf.Qwen2Config(**text),
            image_token_index=token.image_token_id,
            video_token_index=token.video_token_id,
            image_grid_pinpoints=_pinpoints(size),
            tie_word_embeddings=size.tied,
        )
    if family == "qwen2_5_vl":
        half = size.width // size.heads // 2
        rope = {"rope_type": "default", "mrope_section": [half - 2 * (half * 3 // 8)] + [half * 3 // 8] * 2}
        tower = {"depth": size.vision_layers, "num_heads": size.vision_heads, "patch_size": 8, "window_size": 32}
        return hf.Qwen2_5_VLConfig(
            vision_config={
                **{key: vision[key] for key in ("hidden_size", "intermediate_size")},
                **tower,
                "out_hidden_size": size.width,
                "fullatt_block_indexes": [size.vision_layers - 1],
            },
            text_config={**text, "rope_parameters": {**rope, "rope_theta": 1e6}},
            image_token_id=token.image_token_id,
            video_token_id=token.video_token_id,
            vision_start_token_id=token.vision_bos_token_id,
            vision_end_token_id=token.vision_eos_token_id,
            tie_word_embeddings=size.tied,
        )
    tower = hf.InternVLVisionConfig(image_size=size.image, patch_size=8, **vision)
    return hf.InternVLConfig(
        vision_config=tower,
        text_config=hf.Qwen2Config(**text),
        image_token_id=token.context_image_token_id,
        image_seq_length=(size.image // 16) ** 2,
        tie_word_embeddings=size.tied,
    )


def build_model(
    family: str, processor: hf.ProcessorMixin, size: Size = Size(), seed: int = 0, dtype: torch.dtype = torch.float32
) -> hf.PreTrainedModel:
    """A model of `family` with random weights from `seed`; the global random generator is not changed."""
    config = build_config(family, processor, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.AutoModelForImageTextToText.from_config(config)
    model.generation_config = hf.GenerationConfig(
        eos_token_id=processor.tokenizer.eos_token_id, pad_token_id=processor.tokenizer.pad_token_id
    )
    return model.to(dtype).eval()


def create(family: str, words: tuple[str, ...], size: Size, seed: int) -> Policy:
    """A miniature policy with random weights."""
    processor = build_processor(family, words, size)
    return Policy(build_model(family, processor, size, seed).to(device()), processor)
