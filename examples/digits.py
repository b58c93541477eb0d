"""Writes digits.bin.gz: the 1,797 images of scikit-learn's load_digits, as bytes.

Layout: 1797 x 64 pixel values 0..16, image by image, row by row; then 1797 labels 0..9.
Run: python digits.py (needs numpy and scikit-learn; made with scikit-learn 1.9.1).
"""

import gzip
import pathlib

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
content = digits.data.astype(np.uint8).tobytes() + digits.target.astype(np.uint8).tobytes()
target = pathlib.Path(__file__).with_name("digits.bin.gz")
# mtime=0: the same bytes every time.
target.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
print(f"{target.name}: {len(digits.target)} images, {target.stat().st_size} bytes")
