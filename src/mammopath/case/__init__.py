"""One patient: what a trained run says of the images, where, and whether the modalities agree."""
