"""The experiments: `fcn_voc` is complete, and the other configs derive from it."""
