"""Train an Imagen from nothing, on pictures of scenes whose every attribute is known."""
