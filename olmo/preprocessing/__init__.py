"""From a raw example (media plus questions) to the arrays of one training or inference sequence."""
