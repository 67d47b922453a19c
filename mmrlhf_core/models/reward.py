"""The critique-based reward model (arXiv 2502.10391, §3): it writes a critique of a response, then a head scores it.

Training, evaluation and inference share one function that turns a response and its critique into tokens, and one that
finds the token whose state is scored. A saved model is the base model's folder with two more files.
Shapes: `K` responses to one prompt, `M` of a batch, `N` response tokens of the batch, `D` width.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmrlhf_core.data import storage
from mmrlhf_core.models import policy, prompts
from mmrlhf_core.models.policy import Policy, PolicyError
from mmrlhf_core.models.prompts import Prompt, Wording
from mmrlhf_core.ranked.batch import RankedQuery, split_inputs

HEAD, FORM = "score.safetensors", "score.json"


@dataclass(frozen=True)
class Form:
    """How a response is shown to the model and where its score is read.

    end: id of the token that ends a turn; before: number of end tokens between a response and its critique;
    critique: whether the model writes critiques (if not, it is the scalar reward model of eq. 1);
    newline: tokens behind the end token, the last of which carries the score (in the authors' release; else none).
    """

    end: int
    before: int
    critique: bool = True
    wording: Wording = prompts.BRIEF
    newline: tuple[int, ...] = ()


def form_of(
    processor: hf.ProcessorMixin, wording: Wording = prompts.BRIEF, critique: bool = True, newline: str = ""
) -> Form:
    """The form that fits a processor's chat template."""
    end, (_, tail) = processor.tokenizer.eos_token_id, prompts.critique_frame(processor, Prompt("?"), wording)
    return Form(end, tail.count(end), critique, wording, tuple(prompts.literal(processor, newline)))


class ScoreHead(nn.Module):
    """States [M, D] at the score places to scores [M]: linear, tanh, linear; the release's head without its dropout."""

    def __init__(self, width: int, form: Form, seed: int = 0) -> None:
        super().__init__()
        self.form = form
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.dense, self.out_proj = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):  # scores differ by little: full precision
            scores: Tensor = self.out_proj(torch.tanh(self.dense(states.to(self.dense.weight.dtype))))
            return scores[:, 0]


class RewardModel(NamedTuple):
    """Base model with processor, head, and the SHA-256 of the folder it was loaded from (blank: never saved)."""

    policy: Policy
    head: ScoreHead
    digest: str = ""

    @property
    def form(self) -> Form:
        return self.head.form


def create(base: Policy, wording: Wording = prompts.BRIEF, critique: bool = True, seed: int = 0) -> RewardModel:
    """A reward model whose head has random weights, which the seed decides."""
    width, form = base.model.config.get_text_config().hidden_size, form_of(base.processor, wording, critique)
    return RewardModel(base, ScoreHead(width, form, seed).to(base.model.device, base.model.dtype))


# ---------------------------------------------------------------- tokens


def opening(processor: hf.ProcessorMixin, form: Form, prompt: Prompt, response: str) -> list[int]:
    """Tokens of a response and of what stands between it and its critique."""
    return prompts.literal(processor, response) + prompts.critique_frame(processor, prompt, form.wording)[1]


def encode_prompt(processor: hf.ProcessorMixin, form: Form, prompt: Prompt) -> tuple[Tensor, dict[str, Tensor]]:
    """Tokens [P] of pictures and question, up to where a response begins, and the media tensors."""
    head, _ = prompts.critique_frame(processor, prompt, form.wording)
    return split_inputs(prompts.encode_rendered(processor, [prompt], [head]))


def encode_branches(
    processor: hf.ProcessorMixin, form: Form, prompt: Prompt, responses: Sequence[str], critiques: Sequence[str | None]
) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens of each response with its critique and end token, and which of them enter the critique's loss.

    A response whose critique is None is scored, and none of its tokens enters that loss.
    """
    _, tail = prompts.critique_frame(processor, prompt, form.wording)
    branches, counted = [], []
    for response, critique in zip(responses, critiques, strict=True):
        if critique and not form.critique:
            raise ValueError("This reward model scores responses without a critique; leave critiques out.")
        shown = prompts.literal(processor, response) + tail
        written = prompts.answer_ids(processor, critique or "")
        branches.append(torch.tensor([*shown, *written, *form.newline]))
        counts = torch.zeros(len(branches[-1]), dtype=torch.bool)
        counts[len(shown) : len(shown) + len(written)] = critique is not None
        counted.append(counts)
    return branches, counted


def encode(
    processor: hf.ProcessorMixin, form: Form, prompt: Prompt, responses: Sequence[str], critiques: Sequence[str | None]
) -> RankedQuery:
    """Tokens of pictures and question, once, and of each response with its critique and end token; without pairs."""
    branches, counted = encode_branches(processor, form, prompt, responses, critiques)
    return RankedQuery(*encode_prompt(processor, form, prompt), branches, [], counted)


def score_places(targets: Tensor, response_of: Tensor, places: Tensor, responses: int, form: Form) -> Tensor:
    """Places of the states to score, [M]: at each response's end-of-critique token, found by its id.

    targets [N]: the tokens of all responses; response_of [N]: the response of each token; places [N]: its place.
    """
    ends = targets == form.end
    counts = torch.zeros(responses, dtype=torch.long, device=targets.device).index_add(0, response_of, ends.long())
    for number in (counts != form.before + 1).nonzero().flatten().tolist():
        raise ValueError(
            f"Response {number} of the batch has {int(counts[number])} end tokens instead of {form.before + 1}, so the "
            "end of its critique is unknown; build its tokens with models.reward.encode."
        )
    passed = ends.cumsum(0) - (counts.cumsum(0) - counts)[response_of]
    return places[ends & (passed == form.before + 1)] + len(form.newline)


# ---------------------------------------------------------------- folders


def save_head(folder: str | Path, state: dict[str, Tensor], form: Form) -> None:
    """Write the head's weights and the form into the folder of a saved base model."""
    save_file({name: value.contiguous() for name, value in state.items()}, Path(folder) / HEAD)
    storage.write_json(Path(folder).resolve() / FORM, asdict(form))


def save(folder: str | Path, model: RewardModel) -> None:
    """Write base, processor and head as one Hugging Face folder, whole or not at all."""
    with storage.writing(folder) as temporary:
        policy.save(temporary.resolve(), model.policy)
        save_head(temporary, model.head.state_dict(), model.form)


def _form(folder: Path) -> Form:
    """The form a folder was saved with."""
    saved = storage.read_object(file := (folder / FORM).resolve(), ("wording", "newline"))
    try:
        return Form(**{**saved, "wording": Wording(**saved["wording"]), "newline": tuple(saved["newline"])})
    except TypeError as error:
        raise PolicyError(f"{file} describes no reward model ({error}); save the model again.") from error


def load(name: str | Path, dtype: torch.dtype | str = "auto") -> RewardModel:
    """Load a reward model by folder or hub id, in evaluation mode."""
    folder = policy.locate(str(name))
    if not (folder / HEAD).is_file() or not (folder / FORM).is_file():
        raise PolicyError(f"{folder} has no {HEAD} and {FORM}, so it is no reward model. Train one, or use `released`.")
    base, form, state = policy.load(str(folder), dtype), _form(folder), load_file(folder / HEAD)
    known = form_of(base.processor, form.wording)
    if (known.end, known.before) != (form.end, form.before):
        raise PolicyError(f"{folder} was trained with another chat template. Restore the template it was saved with.")
    return _scored(folder, base, form, state)


def _scored(folder: Path, base: Policy, form: Form, state: dict[str, Tensor]) -> RewardModel:
    """The base model with a head of these weights, and the digest of the folder in the base's number format."""
    head = _filled(folder, ScoreHead(base.model.config.get_text_config().hidden_size, form), state)
    digest = storage.sha256_bytes(f"{base.model.dtype} {storage.sha256_tree(folder)}".encode())
    return RewardModel(base, head.to(base.model.device, base.model.dtype).eval(), digest)


Module = TypeVar("Module", bound=nn.Module)


def _filled(folder: Path, module: Module, state: dict[str, Tensor]) -> Module:
    """The module with these weights, or an error that names the first weight that does not fit."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    for name in sorted(own.keys() | given.keys()):
        if own.get(name) != given.get(name):
            raise PolicyError(
                f"{folder} does not match the architecture: {name} is {given.get(name, 'not there')} and should be "
                f"{own.get(name, 'not there')}; give the base model it was trained from."
            )
    module.load_state_dict(state)
    return module


_RELEASED = (  # first match: name in the release, name in transformers' LLaVA-OneVision
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.", "model.language_model."),
    ("", ""),
)


def _renamed(name: str) -> str:
    old, new = next(pair for pair in _RELEASED if name.startswith(pair[0]))
    return new + name.removeprefix(old)


def released(folder: str | Path, base: str, wording: Wording) -> RewardModel:
    """The authors' MM-RLHF-Reward-7B from its own files; `base` is LLaVA-OneVision in the layout of transformers.

    `wording` has to be the prompt it was trained with (`make_conv_rm` of the release). The release reads its score one
    token later, at the line end behind the end token, and so does the model returned here.
    """
    folder, loaded = storage.path(folder), policy.load(base)
    state = {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
    kind = loaded.model.config.model_type
    if "rm_head.dense.weight" not in state or kind != "llava_onevision":
        raise PolicyError(
            f"{folder} ({len(state)} weights, base {kind}) is not in the layout of MM-RLHF-Reward-7B: that has an "
            "`rm_head` on LLaVA-OneVision in safetensors files."
        )
    head = {name.removeprefix("rm_head."): value for name, value in state.items() if name.startswith("rm_head.")}
    rest = {_renamed(name): value for name, value in state.items() if not name.startswith("rm_head.")}
    own, tokens = loaded.model.state_dict(), len(loaded.processor.tokenizer)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        if name in own and name not in rest and loaded.model.config.tie_word_embeddings:
            rest[name] = rest["model.language_model.embed_tokens.weight"]
        if name in rest and len(rest[name]) != len(own[name]) and min(len(rest[name]), len(own[name])) >= tokens:
            filler = own[name][tokens:]  # rows behind the last token pad the table and are never looked up
            rest[name] = torch.cat([rest[name][:tokens].to(filler), filler])
    _filled(folder, loaded.model, rest)
    return _scored(folder, loaded, form_of(loaded.processor, wording, newline="\n"), head)
