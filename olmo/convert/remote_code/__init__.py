"""The code that an exported pruned model brings along: our own modules, made independent of this package.

transformers loads code of a folder only if all of it lies in that folder. So the modules that the model needs are copied there, one file
each, with their imports pointing at each other. A few are replaced by short ones (`templates/`): those that read YAML files, tokenise text
or prepare training data. Nothing is rewritten inside the modules that compute.
"""

from olmo.convert.remote_code.generate import pruned_config, write_remote_code

__all__ = ["pruned_config", "write_remote_code"]
