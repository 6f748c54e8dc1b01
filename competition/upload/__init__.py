"""Where submissions go: one small file for each target, and ``send``, which alone calls them."""
