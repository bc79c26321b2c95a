"""The cascade's pipelines."""

# First of all: as soon as it is imported our own pipelines are (`hub/classes.py: known_to_diffusers`), and none may be half imported then.
import diffusers.pipelines.pipeline_utils  # noqa: F401
