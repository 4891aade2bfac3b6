"""Data preparation: generated scenes, checks and conversions. Numpy and OpenCV only."""
