"""From the outputs of calibration frames to INT8 networks that keep their accuracy."""
