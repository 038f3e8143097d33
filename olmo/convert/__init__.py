"""Tools on files of weights: preparing pretrained parts, changing the format of checkpoints, comparing and averaging them."""
