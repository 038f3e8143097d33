"""What other evaluation tools find of this package through their entry points."""

MODEL_NAME = "molmo2_stts"
"""What `--model` of lmms-eval is given."""


def lmms_eval_models():
    """Entry point `lmms_eval.models`: where lmms-eval finds the model. It is called by every start of lmms-eval, so it imports nothing
    of ours."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(MODEL_NAME, simple_class_path="olmo.plugins.lmms_eval.Molmo2Stts")
