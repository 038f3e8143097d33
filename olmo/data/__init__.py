"""From files on disk to batches: video readers, data sets, mixtures, packing, the loaders."""
