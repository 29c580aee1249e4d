"""The explorer: a local server with a page on which cells are edited and the tissue is generated again at once."""
