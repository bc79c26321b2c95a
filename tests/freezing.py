"""Imported last by the process that others fork from: the garbage collector passes over what is there then.

Otherwise each fork's first pass would look at half a million objects, and copy the memory that they lie in.
"""

import gc

gc.collect()
gc.freeze()
