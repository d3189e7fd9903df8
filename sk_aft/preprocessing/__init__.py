"""Preprocessors: raw rows -> the tensors of a student."""

from sk_aft.preprocessing._auto import make_preprocessor
from sk_aft.preprocessing._columns import ColumnPreprocessor
from sk_aft.preprocessing._image import ImageResizer
from sk_aft.preprocessing._subword import SubwordTokenizer

__all__ = ["ColumnPreprocessor", "ImageResizer", "SubwordTokenizer", "make_preprocessor"]
