"""From PyTorch to a proved deployment bundle."""
