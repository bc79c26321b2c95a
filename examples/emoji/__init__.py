"""An Imagen of emoji: real things, on a frozen pretrained text encoder. The README of this folder lists the files."""
