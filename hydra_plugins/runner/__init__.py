"""Sweepers and launchers of this project; Hydra takes plugins from the package `hydra_plugins` alone.

Hydra imports every module here before it composes a config: what is heavy is imported when it is used.
"""
