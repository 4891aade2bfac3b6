"""What a frame costs: power, temperature and throttling while `hnx bench` measures; one module for each sensor."""
