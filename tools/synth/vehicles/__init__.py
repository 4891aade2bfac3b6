"""Road vehicles: shapes, textures and their shading."""
