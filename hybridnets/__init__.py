"""The HybridNets network and its domain: configuration, anchors, pre- and postprocessing, bundles.

Importing this package costs nothing; `hybridnets.network` is the only module family that needs torch.
"""
