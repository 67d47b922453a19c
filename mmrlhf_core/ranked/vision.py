"""Pictures and clips of a packed batch: one call of the vision tower per kind of media and step."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mmrlhf_core.ranked.batch import Tree


def _stack(parts: list[Tensor]) -> Tensor:
    """Concatenate along the first axis; LLaVA's tiles [n, tiles, 3, H, W] are padded to the largest count first."""
    if parts[0].dim() == 5:
        tiles = max(part.shape[1] for part in parts)
        parts = [torch.nn.functional.pad(part, (0,) * 7 + (tiles - part.shape[1],)) for part in parts]
    return torch.cat(parts)


def _gather(media: tuple[dict[str, Tensor], ...], keys: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors under `keys` of all queries that have them."""
    return {key: _stack([one[key] for one in media if key in one]) for key in keys if any(key in one for one in media)}


def _flat(features: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Features of all pictures as [tokens, width]."""
    return features.flatten(0, 1) if isinstance(features, Tensor) else torch.cat(list(features))


def _picture_features(model: PreTrainedModel, media: tuple[dict[str, Tensor], ...]) -> Tensor:
    keys = ("pixel_values", "image_sizes", "batch_num_images", "image_grid_thw")
    return _flat(model.get_image_features(**_gather(media, keys)).pooler_output)


def _clip_features(model: PreTrainedModel, media: tuple[dict[str, Tensor], ...]) -> Tensor:
    """Features of all clips [tokens, width]; LLaVA-OneVision's clips are batched by their number of frames."""
    with_clips = [one for one in media if "pixel_values_videos" in one]
    if "video_grid_thw" in with_clips[0]:
        batch = _gather(tuple(with_clips), ("pixel_values_videos", "video_grid_thw"))
        return _flat(model.get_video_features(**batch).pooler_output)
    clips = [clip for one in with_clips for clip in one["pixel_values_videos"]]
    features: list[Tensor] = [clips[0]] * len(clips)
    for frames in sorted({len(clip) for clip in clips}):
        chosen = [number for number, clip in enumerate(clips) if len(clip) == frames]
        stacked = torch.stack([clips[number] for number in chosen])
        for number, feature in zip(chosen, model.get_video_features(stacked).pooler_output, strict=True):
            features[number] = feature
    return torch.cat(features)


def embed(model: PreTrainedModel, tree: Tree) -> Tensor:
    """Input embeddings [1, T, width] of a batch, with every picture and clip encoded once and put in its place."""
    embeds = model.get_input_embeddings()(tree.ids[None])
    for key, name, features_of in (
        ("pixel_values", "image_token_id", _picture_features),
        ("pixel_values_videos", "video_token_id", _clip_features),
    ):
        if any(key in one for one in tree.media):
            place = tree.ids == getattr(model.config, name)
            features = features_of(model, tree.media).to(embeds.dtype)
            if int(place.sum()) != len(features) or bool((place & (tree.branch_of > 0)).any()):
                raise ValueError(
                    f"{int(place.sum())} placeholders for {len(features)} {key} features. Placeholders must stand in "
                    "the prefix only; encode prompts with encode_prefix and responses with encode_response."
                )
            embeds = embeds.masked_scatter(place[None, :, None], features)
    return embeds
