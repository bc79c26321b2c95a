"""Complete configurations of known networks: `ImagenUNet2DConditionModel(**PAPER_BASE)`. Data only."""

# Imagen, appendix F.1, F.2 and F.3, with T5-XXL's 4096-wide text.
PAPER_BASE = {
    "sample_size": 64,
    "block_out_channels": (512, 1024, 1536, 2048),
    "layers_per_block": 3,
    "attention_levels": (False, True, True, True),
    "attention_head_dim": 64,
    "encoder_hid_dim": 4096,
}
PAPER_SR256 = {
    "sample_size": 256,
    "block_out_channels": (128, 256, 512, 1024),
    "layers_per_block": (2, 4, 8, 8),
    "attention_kind": "self_text",
    "num_attention_heads": 8,
    "encoder_hid_dim": 4096,
}
PAPER_SR1024 = {**PAPER_SR256, "sample_size": 1024, "attention_kind": "cross_text"}

# Between the paper's and imagen-scenes, for one GPU of 24 GB and the 1024-wide text of T5's large encoders: the bundled
# imagen-medium, which has no weights.
MEDIUM_BASE = {
    "sample_size": 64,
    "block_out_channels": (192, 384, 576, 768),
    "layers_per_block": 2,
    "attention_levels": (False, True, True, True),
    "attention_head_dim": 64,
    "encoder_hid_dim": 1024,
    "noisy_skip": True,
    "detail_channels": 16,
}
MEDIUM_SR256 = {
    "sample_size": 256,
    "block_out_channels": (128, 256, 512, 768),
    "layers_per_block": (2, 2, 4, 4),
    "attention_kind": "self_text",
    "num_attention_heads": 8,
    "encoder_hid_dim": 1024,
    "patch_size": 2,
    "linear_skip": True,
    "noisy_skip": True,
    "detail_channels": 16,
}
MEDIUM_SR1024 = {**MEDIUM_SR256, "sample_size": 1024, "attention_kind": "cross_text"}

# Small enough for a laptop's processor: the bundled imagen-scenes.
SCENES_BASE = {
    "sample_size": 64,
    "block_out_channels": (128, 256),
    "layers_per_block": 1,
    "attention_levels": (True, True),
    "attention_head_dim": 64,
    "encoder_hid_dim": 128,
    "patch_size": 4,
    "noisy_skip": True,
    "detail_channels": 16,
    "time_embed_dim": 512,
}
SCENES_SR256 = {
    "sample_size": 256,
    "block_out_channels": (64, 128, 192),
    "layers_per_block": (1, 2, 2),
    "attention_kind": "self_text",
    "num_attention_heads": 6,
    "encoder_hid_dim": 128,
    "patch_size": 2,
    "linear_skip": True,
    "noisy_skip": True,
    "detail_channels": 16,
    "time_embed_dim": 384,
}
SCENES_SR1024 = {
    "sample_size": 1024,
    "block_out_channels": (64, 96, 128),
    "layers_per_block": (1, 2, 2),
    "attention_kind": "cross_text",
    "num_attention_heads": 4,
    "encoder_hid_dim": 128,
    "patch_size": 4,
    "linear_skip": True,
    "noisy_skip": True,
    "detail_channels": 8,
    "time_embed_dim": 256,
}

# The last stage of examples/emoji: drawings need fewer features than grain and weave, and the cascade is to be small with its text encoder.
EMOJI_SR1024 = {
    **SCENES_SR1024,
    "block_out_channels": (48, 64),
    "layers_per_block": (1, 2),
    "norm_num_groups": 16,
    "encoder_hid_dim": 384,
    "detail_channels": 16,
    "time_embed_dim": 64,
}
