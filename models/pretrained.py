"""A trained model as a folder for others: weights as safetensors, config.json, and a model card.

    folder/model.safetensors    the weights; the file's metadata name the networks (`models.published`)
    folder/config.json          options, record and best scores of the training
    folder/README.md            the model card

Such a folder is what model hubs store. `from_pretrained` reads one from the disk, or downloads it by the hub's own
library.
"""

import json
import os
import re
from typing import Any

from path import Path

from files.atomic import write_text
from files.errors import InputError
from models.checkpoint import checkpoint_file, load_checkpoint, load_model
from models.published import SUFFIX, base_name, publish
from models.sfm_learner import SfMLearner

WEIGHTS = f"model{SUFFIX}"
FILES = (WEIGHTS, "config.json", "README.md")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_SCORES = {
    "abs_rel": "Abs Rel of depth (median scaling)",
    "ate": "ATE of a snippet (m)",
    "photometric": "photometric error (images in [-1, 1])",
    "structure": "rank correlation with two-view geometry",
}


def save_pretrained(checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str], half: bool = False) -> None:
    """Write the folder of a checkpoint of train.py.

    Args:
        checkpoint: the file, or a run's folder, of which `last.pt` is taken.
        half: half-precision weights.

    Raises:
        InputError: the checkpoint is damaged, or the folder holds other files.
    """
    folder = Path(folder)
    content = load_checkpoint(checkpoint_file(checkpoint))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a new folder")
    others = sorted(set(os.listdir(folder)) - set(FILES) - {".git", ".gitattributes"}) if folder.is_dir() else []
    if others:
        raise InputError(f"{folder}: holds {others[0]}, expected a new folder or one that this command wrote")
    folder.makedirs_p()
    publish(content, folder / WEIGHTS, half)
    load_model(folder / WEIGHTS)  # read as its users will read it
    write_text(folder / "config.json", json.dumps(_config(content), indent=2) + "\n")
    write_text(folder / "README.md", model_card(content))


def from_pretrained(source: str | os.PathLike[str], revision: str | None = None) -> SfMLearner:
    """A trained model in evaluation mode, on the CPU.

    Args:
        source: a folder of `save_pretrained`, a checkpoint or published weights, a run's folder, or "OWNER/NAME" on
            the hub, which is downloaded and kept by huggingface_hub.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: there is nothing, it cannot be downloaded, is damaged, or holds one network alone.
    """
    file = Path(source)  # a str, whatever kind of path was given
    if (file / WEIGHTS).is_file():
        file = file / WEIGHTS
    elif file.is_dir():
        file = checkpoint_file(file)
    elif not file.exists() and file.suffix not in (SUFFIX, ".pt", ".pth", ".tar") and _REPOSITORY.fullmatch(file):
        file = _download(file, revision)
    loaded = load_model(file)
    if loaded.depth_net is None or loaded.pose_net is None:
        there = "depth" if loaded.depth_net is not None else "pose"
        raise InputError(f"{file}: holds a {there} network alone, expected both")
    return SfMLearner(loaded.depth_net, loaded.pose_net, loaded.camera).eval()


def model_card(content: dict[str, Any]) -> str:
    """The model card of a checkpoint (`models.checkpoint.load_checkpoint`), from its own record, as Markdown."""
    record, options, networks = content["record"], content["options"], content["networks"]
    scenes = record.get("scenes")
    lines = [
        "---",
        "library_name: pytorch",
        "pipeline_tag: depth-estimation",
        "tags: [depth-estimation, ego-motion, self-supervised, sfmlearner]",
        "---",
        "",
        "# Depth and ego-motion from video without labels",
        "",
        "Trained by the method of SfMLearner (Zhou et al., CVPR 2017). Depth and translations share one unknown scale.",
        "",
        *_table("Networks", [(role, _network(spec)) for role, spec in networks.items()]),
        *_table(
            "Data",
            [
                ("folder", base_name(options.get("data"))),
                ("training scenes", "unknown" if scenes is None else _listed(scenes)),
                ("snippets", record.get("snippets")),
                ("image size", f"{record.get('width')} x {record.get('height')} pixels"),
            ],
        ),
        *_table("Recipe", [("steps", content["step"]), *_recipe(options)]),
        *_table(
            "Scores of the best validation",
            [(_SCORES.get(name, name), f"{best['value']:.4g} at step {best['step']}") for name, best in _best(content)],
        ),
        "## Licences",
        "",
        *_licences(content),
        "",
        "## Use",
        "",
        "```python",
        "import torch",
        "",
        'model = torch.hub.load("REPOSITORY", "sfmlearner", checkpoint="THIS FOLDER")',
        "disparity = model.depth_net(image)[0]  # image [B, 3, H, W], RGB in [-1, 1]",
        "source_from_target, _ = model.pose_net(target, sources)  # [B, 3, H, W], [B, N, 3, H, W]",
        "```",
        "",
    ]
    return "\n".join(lines)


def _config(content: dict[str, Any]) -> dict[str, Any]:
    """The content of config.json: plain values of the checkpoint, without paths of the machine."""
    options = dict(content["options"])
    for name in ("name", "runs"):
        options.pop(name, None)
    for name in ("data", "encoder_weights", "prior"):  # "none", "imagenet" and "world" are their own base names
        if name in options:
            options[name] = base_name(options[name])
    options["start_from"] = [base_name(file) for file in content["options"].get("start_from") or ()]
    config = {"networks": content["networks"], "options": options, "record": content["record"]}
    return config | {"step": content["step"], "best": content["best"], "torch": str(content.get("torch", "unknown"))}


def _download(repository: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise InputError(
            f"{repository}: no such file or folder; to download it from the hub: pip install huggingface_hub"
        ) from None
    try:
        return Path(hf_hub_download(repository, WEIGHTS, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{repository}: no such file or folder, and not on the hub: {reason}") from None


def _table(title: str, rows: list[tuple[str, Any]]) -> list[str]:
    known = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in rows if value not in (None, "")]
    if not known:
        return [f"## {title}", "", "Not recorded.", ""]
    return [f"## {title}", "", "| | |", "|---|---|", *known, ""]


def _network(spec: dict[str, Any]) -> str:
    return " ".join([f"`{spec['name']}`", *(f"{name}={value}" for name, value in spec["arguments"].items())])


def _recipe(options: dict[str, Any]) -> list[tuple[str, Any]]:
    names = (
        "recipe",
        "sequence_length",
        "batch_size",
        "accumulate",
        "learning_rate",
        "schedule",
        "augmentation",
        "seed",
    )
    rows = [(name.replace("_", " "), options.get(name)) for name in names]
    objective = options.get("objective")
    if isinstance(objective, dict):
        rows.append(("objective", ", ".join(f"{name}={value}" for name, value in objective.items())))
    return rows


def _best(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(content["best"].items())


def _licences(content: dict[str, Any]) -> list[str]:
    """What is known of the licences of weights that this training did not make."""
    options = content["options"]
    lines = [
        "- The code that made this model is under the licence of its repository. These weights also depend on the "
        "licence of the training data: look it up before publishing them.",
    ]
    foreign = options.get("encoder_weights", "none")
    encoders = ", ".join(
        str(spec["arguments"].get("encoder", spec["name"]))
        for role, spec in content["networks"].items()
        if role != "camera"
    )
    if foreign == "imagenet":
        lines.append(
            f"- The encoders ({encoders}) began with ImageNet weights: those of torchvision (BSD-3-Clause code; the "
            "images of ImageNet are for non-commercial research), or of timm, where each model's page has its licence."
        )
    elif foreign != "none":
        lines.append(f"- The encoders ({encoders}) began with the weights in {base_name(foreign)}: add their licence.")
    lines += [
        f"- The training began with the weights in {base_name(file)}: add their licence."
        for file in options.get("start_from") or ()
    ]
    if options.get("prior") is not None:
        prior = base_name(options["prior"])
        lines.append(f"- The training kept depth near the predictions of the weights in {prior}: add their licence.")
    return lines


def _listed(names: list[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return f"{len(names)}: {shown}{f' and {len(names) - most} more' if len(names) > most else ''}"
