"""Images as the scorers' vision towers were shown them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pea.evaluation.drawing import Images

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's training images; BLIP and open_clip use the same."""


def cropped_pixels(images: Images, size_px: int) -> Tensor:
    """Images uint8 `[B, H, W, 3]` -> float32 `[B, 3, size, size]`: shorter side resized, the middle cut out.

    Source: openai/CLIP, clip/clip.py (`_transform`); Pillow's bicubic, as there.
    """
    return _normalized(torch.from_numpy(np.stack([_cropped(image, size_px) for image in images])).permute(0, 3, 1, 2))


def _cropped(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    shorter = min(height, width)
    size = (int(size_px * width / shorter), int(size_px * height / shorter))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    top, left = (round((side - size_px) / 2) for side in small.shape[:2])
    return small[top : top + size_px, left : left + size_px]


def letterboxed_pixels(images: Images, size_px: int) -> Tensor:
    """Images uint8 `[B, H, W, 3]` -> float32 `[B, 3, size, size]`: longer side resized, the rest black.

    Source: tgxs002/HPSv2, hpsv2/src/open_clip/transform.py (`ResizeMaxSize`), with the antialiasing that torchvision
    has by default from 0.17 on.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    longer = max(pixels.shape[2:])
    height, width = (round(side * size_px / longer) for side in pixels.shape[2:])
    if longer != size_px:
        pixels = functional.interpolate(pixels, (height, width), mode="bicubic", align_corners=False, antialias=True)
    missing_x, missing_y = size_px - width, size_px - height
    edges = (missing_x // 2, missing_x - missing_x // 2, missing_y // 2, missing_y - missing_y // 2)
    pixels = functional.pad(pixels, edges)
    return _normalized(pixels * 255)


def _normalized(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
    return (pixels.float() / 255 - mean) / std
