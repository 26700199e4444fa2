"""What a diffusers checkpoint is, read off its configurations alone; what is not supported is refused by its name.

Light to import: identity, plan and preflight ask here before any weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pea.errors import CheckpointError
from pea.file_names import MODEL_CONFIG
from pea.foreign_json import json_object
from pea.models.config_fields import COUNT, TEXT, UNET, VAE, Kind, check_fields
from pea.models.noise_schedule import schedule_fields

_POOLED = ("addition_time_embed_dim", "projection_class_embeddings_input_dim")
_SIZES = 6
"""`time_ids` of SDXL: original height and width, crop's top and left, target height and width."""
_OTHER_UNETS = {
    "class_embed_type": "a UNet with class embeddings",
    "num_class_embeds": "a UNet with class embeddings",
    "encoder_hid_dim": "a UNet that projects its text states (image prompts, Kandinsky, DeepFloyd)",
    "encoder_hid_dim_type": "a UNet that projects its text states (image prompts, Kandinsky, DeepFloyd)",
    "time_cond_proj_dim": "a UNet that takes the guidance scale (distilled, such as LCM)",
    "dual_cross_attention": "a UNet that reads two texts at once (Versatile Diffusion)",
}
_INPUTS = {
    9: "an inpainting UNet (9 input channels)",
    8: "a UNet that also sees an image (8 input channels)",
    7: "an upscaler (7 input channels)",
    5: "a depth-conditioned UNet (5 input channels)",
}
_COLOURS = 3
_PIPELINE = "Give a diffusers pipeline folder, or org/name@revision of the hub."
_BASE = "Use the text-to-image model that it was made from."


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """`config.json` of a part.

    Raises:
        CheckpointError: there is none.
    """
    try:
        return json_object((folder / MODEL_CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        got = getattr(error, "strerror", None) or str(error).splitlines()[0]
        below = sorted(path.parent.name for path in folder.glob(f"*/{MODEL_CONFIG}"))[:4]
        remedy = f"There is one in {', '.join(below)}: give the folder itself." if below else None
        raise CheckpointError(f"no {what} configuration", where=folder / MODEL_CONFIG, got=got, remedy=remedy) from None


def unet_blocks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Module paths of every down block, the mid block, where there is one, and every up block.

    KOALA, BK-SDM and tiny-sd have no mid block. Source: diffusers `UNet2DConditionModel`.
    """
    down = [f"down_blocks.{index}" for index in range(len(config.get("down_block_types", "4444")))]
    mid = [] if config.get("mid_block_type", "default") is None else ["mid_block"]
    return (*down, *mid, *(f"up_blocks.{index}" for index in range(len(config.get("up_block_types", "4444")))))


def pooled_dim_of(unet: Mapping[str, Any]) -> int | None:
    """Width of the pooled embedding that a UNet takes beside six `time_ids`; None when it takes none.

    Source: diffusers `UNet2DConditionModel`, `addition_embed_type == "text_time"`.
    """
    if unet.get("addition_embed_type") != "text_time":
        return None
    return int(unet["projection_class_embeddings_input_dim"]) - _SIZES * int(unet["addition_time_embed_dim"])


def own_size(unet: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the latents that a UNet draws where nothing else is asked for.

    Source: diffusers, `StableDiffusionPipeline` and `StableDiffusionXLPipeline`, also where `sample_size` is absent.
    """
    size = unet.get("sample_size") or (64 if pooled_dim_of(unet) is None else 128)
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def check_unet(config: Mapping[str, Any], where: object) -> None:
    """Refuse a UNet that is no plain text-to-image one.

    Raises:
        CheckpointError: names what it is.
    """
    if config.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
        raise CheckpointError(
            "unsupported diffusion model", where=where, expected="UNet2DConditionModel", got=config["_class_name"]
        )
    for key, what in _OTHER_UNETS.items():
        if config.get(key) not in (None, False):
            raise CheckpointError(f"{what} is not supported", where=where, got=f"{key} {config[key]}", remedy=_BASE)
    if isinstance(config.get("cross_attention_dim"), list | tuple):
        raise CheckpointError(
            "a UNet whose blocks read texts of several widths is not supported",
            where=where,
            expected="one cross_attention_dim",
            got=config["cross_attention_dim"],
        )
    check_fields(config, UNET, where)
    channels = config.get("in_channels", 4)
    if channels in _INPUTS and channels != config.get("out_channels", 4):
        raise CheckpointError(f"{_INPUTS[channels]} is not supported", where=where, remedy=_BASE)
    if channels != config.get("out_channels", 4):
        raise CheckpointError(
            "a UNet with other inputs than latents is not supported",
            where=where,
            expected=f"{config.get('out_channels', 4)} input channels",
            got=channels,
            remedy=_BASE,
        )
    if config.get("addition_embed_type") not in (None, "text_time"):
        raise CheckpointError(
            "a UNet with other additional embeddings is not supported",
            where=where,
            expected="addition_embed_type null or text_time",
            got=config["addition_embed_type"],
            remedy=_BASE,
        )
    if config.get("addition_embed_type") == "text_time":
        check_fields(dict.fromkeys(_POOLED) | dict(config), dict.fromkeys(_POOLED, COUNT), where)
        pooled = Kind("a pooled embedding of width 1 or more beside six sizes", lambda width: width > 0)
        check_fields({_POOLED[1]: pooled_dim_of(config)}, {_POOLED[1]: pooled}, where)


def check_vae(config: Mapping[str, Any], where: object) -> None:
    """Refuse a VAE whose latents are not mean and standard deviation times one factor.

    Raises:
        CheckpointError: names what it is.
    """
    name = config.get("_class_name", "AutoencoderKL")
    if name != "AutoencoderKL":
        small = "It keeps no standard deviation. " if name == "AutoencoderTiny" else ""
        raise CheckpointError(
            f"a VAE of class {name} is not supported",
            where=where,
            expected="AutoencoderKL",
            remedy=f"{small}Put the model's AutoencoderKL into this folder.",
        )
    for key in ("latents_mean", "latents_std", "shift_factor"):
        if config.get(key) not in (None, 0, 0.0):
            raise CheckpointError(
                f"a VAE with {key} is not supported", where=where, expected="scaling_factor alone", got=config[key]
            )
    check_fields(config, VAE, where)
    for key in ("in_channels", "out_channels"):
        if config.get(key, _COLOURS) != _COLOURS:
            raise CheckpointError(
                f"a VAE with {key} {config[key]} is not supported", where=where, expected="3: red, green and blue"
            )


def vae_dtype(config: Mapping[str, Any], dtype: str) -> str:
    """Type that the VAE runs in where `dtype` is asked for: one that overflows in half precision, in float32.

    Source: diffusers `AutoencoderKL`, where `force_upcast` is true by default.
    """
    return "float32" if dtype == "float16" and config.get("force_upcast", True) else dtype


def check_teacher(checkpoint: Path) -> None:
    """Refuse a checkpoint that is not supported, or whose parts do not fit together, by its configurations.

    Raises:
        CheckpointError: names the part and what is wrong with it.
    """
    check_level(checkpoint)
    _check_not_refiner(checkpoint)
    unet, vae = read_config(checkpoint / "unet", "UNet"), read_config(checkpoint / "vae", "VAE")
    check_unet(unet, checkpoint / "unet")
    check_vae(vae, checkpoint / "vae")
    schedule_fields(checkpoint / "scheduler")
    if unet.get("in_channels", 4) != vae.get("latent_channels", 4):
        raise CheckpointError(
            "UNet and VAE do not fit together",
            where=checkpoint,
            expected=f"{unet.get('in_channels', 4)} latent channels",
            got=vae.get("latent_channels", 4),
        )
    folders = [checkpoint / name for name in ("text_encoder", "text_encoder_2") if (checkpoint / name).is_dir()]
    texts = [text_config(folder) for folder in folders]
    if texts:
        _check_texts(unet, texts, checkpoint)


def check_level(checkpoint: Path) -> None:
    """Refuse what is no pipeline's folder, and say which was meant, where it is one too high or too low.

    Raises:
        CheckpointError: it is none.
    """
    if not checkpoint.is_dir():
        raise CheckpointError("no such model folder", where=checkpoint, remedy=_PIPELINE)
    if (checkpoint / "unet").is_dir():
        return
    below = sorted(path.parent.name for path in checkpoint.glob("*/unet") if path.is_dir())[:4]
    remedy = _PIPELINE
    if (checkpoint.parent / "unet").is_dir():
        remedy = f"Give the folder above: {checkpoint.parent}."
    elif below:
        remedy = f"Give the folder itself: {', '.join(below)}."
    raise CheckpointError(
        "no diffusers pipeline here", where=checkpoint, expected="unet, vae, scheduler", got="no unet", remedy=remedy
    )


def text_config(folder: Path) -> dict[str, Any]:
    """The configuration of an English encoder.

    Raises:
        CheckpointError: there is none, or it has values that it cannot have.
    """
    config = read_config(folder, "text encoder")
    check_fields(config, TEXT, folder)
    return config


def _check_texts(unet: Mapping[str, Any], texts: list[dict[str, Any]], checkpoint: Path) -> None:
    """The conditioning that English encoders give must be as wide as the UNet reads."""
    width, pooled = int(unet.get("cross_attention_dim", 1280)), pooled_dim_of(unet)
    widths = [int(text.get("hidden_size", 512)) for text in texts]
    given = None if len(texts) == 1 else int(texts[-1].get("projection_dim", 512))
    if sum(widths) != width or given != pooled:
        raise CheckpointError(
            "text encoders and UNet do not fit together",
            where=checkpoint,
            expected=f"text states of width {width} and {_pooled(pooled)}",
            got=f"{' + '.join(map(str, widths))} and {_pooled(given)}",
        )


def _pooled(width: int | None) -> str:
    return "no pooled embedding" if width is None else f"a pooled embedding of width {width}"


def _check_not_refiner(checkpoint: Path) -> None:
    if (checkpoint / "text_encoder_2").is_dir() and not (checkpoint / "text_encoder").is_dir():
        raise CheckpointError(
            "the SDXL refiner is not supported: it has one text encoder and takes an aesthetic score",
            where=checkpoint,
            expected="text_encoder beside text_encoder_2",
            remedy="Use the SDXL base model.",
        )
