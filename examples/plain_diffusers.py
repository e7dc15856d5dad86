"""A trained adapter with diffusers alone, after `adapterbench export models/ip_adapter exported`.

python examples/plain_diffusers.py data/backbone exported reference.png out.png
"""

import sys

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import AutoImageProcessor

backbone, exported, reference, out = sys.argv[1:]
pipe = StableDiffusionPipeline.from_pretrained(backbone, safety_checker=None).to(torch.float32)
encoder = f"{exported}/image_encoder"
pipe.feature_extractor = AutoImageProcessor.from_pretrained(encoder, backend="pil")
pipe.load_ip_adapter(exported, subfolder="", weight_name="ip_adapter.safetensors")
prompt = Image.open(reference).convert("RGB")
image = pipe("", ip_adapter_image=prompt, num_inference_steps=20, guidance_scale=3.0).images[0]
image.save(out)
