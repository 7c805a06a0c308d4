"""The experiments: `fcn_voc` is complete, every other config changes another one."""
