"""Train an Imagen from nothing, on images of scenes whose every attribute is known."""
