"""A toy tissue with known truth, written in the vendor folder layout."""
