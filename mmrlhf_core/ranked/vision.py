"""Pictures and clips of a packed batch: one call of the vision tower per kind of media and step.

Outputs of a frozen tower can be cached. The cache holds the tower's outputs and never the projector's, because the
projector is trained.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmrlhf_core.ranked.batch import Tree

Media = tuple[dict[str, Tensor], ...]


class TowerCache:
    """Outputs of the frozen vision tower of one model, by content of the input, within `max_bytes`.

    The least recently used outputs are removed first. `hits` and `misses` count tiles (Qwen2.5-VL: pictures, clips).
    """

    def __init__(self, model: PreTrainedModel, max_bytes: int) -> None:
        self.tower = vision_tower(model)
        self.max_bytes, self.held_bytes, self.hits, self.misses = max_bytes, 0, 0, 0
        self._held: OrderedDict[str, Tensor] = OrderedDict()

    def states(self, tiles: list[Tensor], compute: Callable[[list[int]], Sequence[Tensor]]) -> list[Tensor]:
        """The tower's output for each tile; `compute` is called with the numbers of the tiles not in the cache."""
        if any(parameter.requires_grad for parameter in self.tower.parameters()):
            raise ValueError(
                "The vision tower is trained, so its outputs must not be cached. Freeze it with "
                "requires_grad_(False), or leave the cache out."
            )
        keys = [_content(tile) for tile in tiles]
        outputs = {key: self._held[key] for key in keys if key in self._held}
        missing = {key: number for number, key in enumerate(keys) if key not in outputs}
        self.hits, self.misses = self.hits + len(keys) - len(missing), self.misses + len(missing)
        if missing:
            with torch.no_grad():
                outputs |= zip(missing, compute(list(missing.values())), strict=True)
        for key in keys:
            self._keep(key, outputs[key])
        return [outputs[key] for key in keys]

    def _keep(self, key: str, value: Tensor) -> None:
        if key not in self._held:
            self._held[key] = value.clone()
            self.held_bytes += value.nbytes
        self._held.move_to_end(key)
        while self.held_bytes > self.max_bytes:
            self.held_bytes -= self._held.popitem(last=False)[1].nbytes


def vision_tower(model: PreTrainedModel) -> nn.Module:
    """The module that encodes pixels, for each family."""
    base = _family(model).base_model
    return cast(nn.Module, base.visual if model.config.model_type == "qwen2_5_vl" else base.vision_tower)


def _family(model: PreTrainedModel) -> Any:
    """The model with the methods that `PreTrainedModel` does not declare and every supported family has."""
    return model


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """The vision tower does not train inside the block; afterwards its weights train as before, even after an error."""
    trained = [weight for weight in vision_tower(model).parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def _content(tile: Tensor) -> str:
    """A name for the exact values, type and shape of a tensor."""
    data = tile.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(f"{tile.dtype} {tuple(tile.shape)} ".encode() + data.tobytes()).hexdigest()


class _KnownTower(nn.Module):
    """Replaces a tower of tiles [n, 3, H, W] and calls it only for tiles that are not in the cache."""

    def __init__(self, cache: TowerCache, layer: int, last: bool) -> None:
        super().__init__()
        self.cache, self.layer, self.last = cache, layer, last

    def forward(self, pixel_values: Tensor, **kwargs: object) -> BaseModelOutputWithPooling:
        def compute(numbers: list[int]) -> Sequence[Tensor]:
            out = self.cache.tower(pixel_values[numbers], **kwargs)
            return cast(Sequence[Tensor], out.last_hidden_state if self.last else out.hidden_states[self.layer])

        states = torch.stack(self.cache.states(list(pixel_values), compute))
        layers = cast(Any, {self.layer: states})  # read by number, as if all layers were there
        return BaseModelOutputWithPooling(last_hidden_state=states, hidden_states=layers)


class _KnownBlocks(nn.Module):
    """Replaces the blocks of Qwen2.5-VL's tower and returns their cached output [patches, width]."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return self.states


@contextmanager
def _standing_in(parent: nn.Module, name: str, module: nn.Module) -> Iterator[None]:
    """`parent.name` is `module` inside the block, and the original module afterwards, even after an error."""
    original = getattr(parent, name)
    setattr(parent, name, module)
    try:
        yield
    finally:
        setattr(parent, name, original)


def _known(
    model: PreTrainedModel, pixels: Tensor, grid: Tensor | None, cache: TowerCache | None
) -> AbstractContextManager[None]:
    """A context in which the tower of `model` uses `cache`."""
    if cache is None:
        return nullcontext()
    if cache.tower is not vision_tower(model):
        raise ValueError("The cache belongs to the tower of another model. Make one TowerCache per model.")
    if grid is None:
        layer, family = model.config.vision_feature_layer, model.config.model_type
        if not isinstance(layer, int):
            raise ValueError(f"The cache keeps one layer of the tower, but vision_feature_layer is {layer}.")
        last = family == "internvl" and layer == -1
        return _standing_in(model.base_model, "vision_tower", _KnownTower(cache, layer, last))
    states = torch.cat(_grid_states(cache, pixels, grid))
    return _standing_in(cache.tower, "blocks", nn.ModuleList([_KnownBlocks(states)]))


def answering(model: PreTrainedModel, inputs: dict[str, Tensor], cache: TowerCache) -> AbstractContextManager[None]:
    """A context for one plain call of `model` on processor tensors whose tower uses `cache`."""
    kinds = [("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")]
    given = [(inputs[pixels], inputs.get(grid)) for pixels, grid in kinds if pixels in inputs]
    if not given or (len(given) > 1 and given[0][1] is not None):  # pictures beside clips: two calls of the same blocks
        return nullcontext()
    return _known(model, *given[0], cache)


def _grid_states(cache: TowerCache, pixels: Tensor, grid: Tensor) -> list[Tensor]:
    """Outputs of the blocks of Qwen2.5-VL's tower, one [t·h·w, width] for each row (t, h, w) of `grid`."""
    sizes = grid.prod(-1).tolist()
    patches = pixels.split(sizes)

    def compute(numbers: list[int]) -> Sequence[Tensor]:
        out = cache.tower(torch.cat([patches[n] for n in numbers]), grid_thw=grid[numbers])
        return cast(Sequence[Tensor], out.last_hidden_state.split([sizes[n] for n in numbers]))

    # Pictures of other proportions can have the same patches: the grid belongs to the content.
    tiles = [torch.cat([row.to(part.dtype), part.flatten()]) for row, part in zip(grid, patches, strict=True)]
    return cache.states(tiles, compute)


def _stack(parts: list[Tensor]) -> Tensor:
    """Concatenate along the first axis; LLaVA's tiles [n, tiles, 3, H, W] are padded to the largest count first."""
    if parts[0].dim() == 5:
        tiles = max(part.shape[1] for part in parts)
        parts = [torch.nn.functional.pad(part, (0,) * 7 + (tiles - part.shape[1],)) for part in parts]
    return torch.cat(parts)


def gather(media: Media, keys: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors under `keys` of all queries that have them."""
    parts = {key: [tensors[key] for tensors in media if key in tensors] for key in keys}
    return {key: _stack(tensors) for key, tensors in parts.items() if tensors}


def _flat(features: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Features of all pictures as [tokens, width]."""
    return features.flatten(0, 1) if isinstance(features, Tensor) else torch.cat(list(features))


def _picture_features(model: PreTrainedModel, media: Media, cache: TowerCache | None) -> Tensor:
    """Features of all pictures [tokens, width]."""
    batch = gather(media, ("pixel_values", "image_sizes", "batch_num_images", "image_grid_thw"))
    with _known(model, batch["pixel_values"], batch.get("image_grid_thw"), cache):
        return _flat(_family(model).get_image_features(**batch).pooler_output)


def _with_line_end(model: PreTrainedModel, features: Tensor, frames: int) -> Tensor:
    """Features [n, tokens, width] of LLaVA-OneVision's clips, each with the line end behind it.

    `get_video_features` of transformers 5.17 leaves it to the model's forward; in newer releases it is there already.
    """
    tower = model.config.vision_config
    side = -(-(tower.image_size // tower.patch_size) // 2)
    if features.shape[1] != frames * side**2:
        return features
    end = _family(model).base_model.image_newline.to(features.dtype).expand(len(features), 1, -1)
    return torch.cat([features, end], dim=1)


def _clip_features(model: PreTrainedModel, media: Media, cache: TowerCache | None) -> Tensor:
    """Features of all clips [tokens, width]; LLaVA-OneVision's clips are batched by their number of frames."""
    with_clips = tuple(one for one in media if "pixel_values_videos" in one)
    if "video_grid_thw" in with_clips[0]:
        batch = gather(with_clips, ("pixel_values_videos", "video_grid_thw"))
        with _known(model, batch["pixel_values_videos"], batch["video_grid_thw"], cache):
            return _flat(_family(model).get_video_features(**batch).pooler_output)
    clips = [clip for one in with_clips for clip in one["pixel_values_videos"]]
    features: dict[int, Tensor] = {}
    for frames in sorted({len(clip) for clip in clips}):
        chosen = [number for number, clip in enumerate(clips) if len(clip) == frames]
        stacked = torch.stack([clips[number] for number in chosen])
        with _known(model, stacked, None, cache):
            outputs = _with_line_end(model, _family(model).get_video_features(stacked).pooler_output, frames)
            features |= zip(chosen, outputs, strict=True)
    return torch.cat([features[number] for number in range(len(clips))])


def embed(model: PreTrainedModel, tree: Tree, cache: TowerCache | None = None) -> Tensor:
    """Input embeddings [1, T, width] of a batch; every picture and clip is encoded once and fills its placeholders."""
    embeds: Tensor = model.get_input_embeddings()(tree.ids[None])
    for key, name, features_of in (
        ("pixel_values", "image_token_id", _picture_features),
        ("pixel_values_videos", "video_token_id", _clip_features),
    ):
        if any(key in one for one in tree.media):
            place = tree.ids == getattr(model.config, name)
            features = features_of(model, tree.media, cache).to(embeds.dtype)
            if int(place.sum()) != len(features) or bool((place & (tree.branch_of > 0)).any()):
                raise ValueError(
                    f"{int(place.sum())} placeholders for {len(features)} {key} features. Placeholders must stand in "
                    "the prefix only; encode prompts with prompts.encode and responses with encode_response."
                )
            embeds = embeds.masked_scatter(place[None, :, None], features)
    return embeds
