"""Models: (model, processor) from a Hub name, a folder or a configuration. Importing this registers QuartzNet with Transformers."""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForCTC

from .mel import MelFeatureExtractor
from .quartznet import QuartzNetConfig, QuartzNetForCTC, QuartzNetModel

AutoConfig.register("quartznet", QuartzNetConfig)
AutoModel.register(QuartzNetConfig, QuartzNetModel)
AutoModelForCTC.register(QuartzNetConfig, QuartzNetForCTC)
AutoFeatureExtractor.register(QuartzNetConfig, MelFeatureExtractor)

# with these, save_pretrained writes the code beside the weights and trust_remote_code=True loads it where hfasr is not installed
QuartzNetConfig.register_for_auto_class()
QuartzNetModel.register_for_auto_class("AutoModel")
QuartzNetForCTC.register_for_auto_class("AutoModelForCTC")
MelFeatureExtractor.register_for_auto_class()
