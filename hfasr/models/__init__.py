"""Models: (model, processor) from a Hub name, a folder, a configuration or a .nemo file.

Importing this registers QuartzNet and Citrinet with Transformers.
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForCTC

from .citrinet import CitrinetConfig, CitrinetForCTC, CitrinetModel
from .mel import MelFeatureExtractor
from .quartznet import QuartzNetConfig, QuartzNetForCTC, QuartzNetModel

for config, encoder, model in (
    (QuartzNetConfig, QuartzNetModel, QuartzNetForCTC),
    (CitrinetConfig, CitrinetModel, CitrinetForCTC),
):
    AutoConfig.register(config.model_type, config)
    AutoModel.register(config, encoder)
    AutoModelForCTC.register(config, model)
    AutoFeatureExtractor.register(config, MelFeatureExtractor)

    # with these, save_pretrained writes the code beside the weights and trust_remote_code=True loads it where hfasr is not installed
    config.register_for_auto_class()
    encoder.register_for_auto_class("AutoModel")
    model.register_for_auto_class("AutoModelForCTC")
MelFeatureExtractor.register_for_auto_class()
