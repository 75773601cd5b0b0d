"""``d2pd predict``: a trained detector on pictures, videos and pairs of both cameras."""
