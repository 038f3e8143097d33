"""Statistics of pixels, which both sides use: arrays are normalised by the preprocessor, or uint8 ones by the ViT."""

PIXEL_STATISTICS = {
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "dino": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation per colour channel that turn 0..1 pixels into the model's input."""
