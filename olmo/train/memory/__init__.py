"""What a training takes of a device: counted from the code, and measured."""
