"""Cascades outside PyTorch: networks and text encoders as graphs, and what runs them in the slots of a cascade.

Nothing but the commands imports this folder. A folder of graphs names its classes, and is loaded by these names.
"""
