"""The names of a cascade's stages as components: its networks and their schedulers, stage 1 first."""

SLOTS = (("unet", "scheduler"), ("unet_2", "scheduler_2"), ("unet_3", "scheduler_3"))
UNETS: tuple[str, ...] = tuple(unet for unet, _ in SLOTS)
