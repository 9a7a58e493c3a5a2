"""The table of known encoders: shape, normalisation, licence, and where users get the weights."""

from dataclasses import dataclass

from mammopath.model.parts import IMAGENET_MEAN, IMAGENET_STD, Colours
from mammopath.model.vit import ViTShape


@dataclass(frozen=True)
class Encoder:
    """One vision transformer that the trunk can start from.

    Attributes:
        shape: of the trunk. licence: of the weights, in short; the page at ``source`` has the terms.
        source: repository on the Hugging Face hub; empty where nothing is published (train from scratch).
        file: a safetensors file in it that ``mammopath weights get`` fetches; empty where the authors
            publish another format: save the timm state dict as safetensors yourself.
        mean, std: with which the encoder normalises RGB in [0, 1].
    """

    shape: ViTShape
    licence: str
    source: str
    file: str = ""
    mean: Colours = IMAGENET_MEAN
    std: Colours = IMAGENET_STD


SMALL = ViTShape(patch=14, width=384, depth=12, heads=6, mlp=1536, grid=(37, 37), antialias=False)
BASE = ViTShape(patch=14, width=768, depth=12, heads=12, mlp=3072, grid=(37, 37), antialias=False)
LARGE = ViTShape(patch=14, width=1024, depth=24, heads=16, mlp=4096, grid=(37, 37), antialias=False)
SMALL_REG = ViTShape(patch=14, width=384, depth=12, heads=6, mlp=1536, grid=(37, 37), registers=4)
BASE_REG = ViTShape(patch=14, width=768, depth=12, heads=12, mlp=3072, grid=(37, 37), registers=4)
LARGE_REG = ViTShape(patch=14, width=1024, depth=24, heads=16, mlp=4096, grid=(37, 37), registers=4)
DEMO = ViTShape(patch=16, width=96, depth=4, heads=3, mlp=384, grid=(14, 14), layer_scale=False)
UNI = ViTShape(patch=16, width=1024, depth=24, heads=16, mlp=4096, grid=(14, 14))
UNI2 = ViTShape(
    patch=14, width=1536, depth=24, heads=24, mlp=4096, grid=(16, 16), registers=8, positioned=0, swiglu=True
)
VIRCHOW = ViTShape(patch=14, width=1280, depth=32, heads=16, mlp=3416, grid=(16, 16), swiglu=True)
VIRCHOW2 = ViTShape(
    patch=14, width=1280, depth=32, heads=16, mlp=3416, grid=(16, 16), registers=4, positioned=5, swiglu=True
)
OPTIMUS = ViTShape(
    patch=14, width=1536, depth=40, heads=24, mlp=4096, grid=(16, 16), registers=4, positioned=0, swiglu=True
)
PHIKON = ViTShape(patch=16, width=768, depth=12, heads=12, mlp=3072, grid=(14, 14), layer_scale=False)

ENCODERS: dict[str, Encoder] = {
    "vit_tiny_demo": Encoder(DEMO, "none: trains from scratch", ""),
    "vit_small_patch14_dinov2": Encoder(
        SMALL, "Apache-2.0", "timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors"
    ),
    "vit_base_patch14_dinov2": Encoder(
        BASE, "Apache-2.0", "timm/vit_base_patch14_dinov2.lvd142m", "model.safetensors"
    ),
    "vit_large_patch14_dinov2": Encoder(
        LARGE, "Apache-2.0", "timm/vit_large_patch14_dinov2.lvd142m", "model.safetensors"
    ),
    "vit_small_patch14_reg4_dinov2": Encoder(
        SMALL_REG, "Apache-2.0", "timm/vit_small_patch14_reg4_dinov2.lvd142m", "model.safetensors"
    ),
    "vit_base_patch14_reg4_dinov2": Encoder(
        BASE_REG, "Apache-2.0", "timm/vit_base_patch14_reg4_dinov2.lvd142m", "model.safetensors"
    ),
    "vit_large_patch14_reg4_dinov2": Encoder(
        LARGE_REG, "Apache-2.0", "timm/vit_large_patch14_reg4_dinov2.lvd142m", "model.safetensors"
    ),
    "uni": Encoder(UNI, "CC BY-NC-ND 4.0, gated", "MahmoodLab/UNI"),
    "uni2_h": Encoder(UNI2, "CC BY-NC-ND 4.0, gated", "MahmoodLab/UNI2-h"),
    "virchow": Encoder(VIRCHOW, "Apache-2.0, gated", "paige-ai/Virchow"),
    "virchow2": Encoder(VIRCHOW2, "CC BY-NC-ND 4.0, gated", "paige-ai/Virchow2"),
    "h_optimus_0": Encoder(
        OPTIMUS,
        "Apache-2.0, gated",
        "bioptimus/H-optimus-0",
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
    ),
    "phikon": Encoder(PHIKON, "Owkin non-commercial", "owkin/phikon", "model.safetensors"),
}
"""Encoders by the name that ``model.encoder`` takes."""
