"""A reader study in a page: people say which patches are real, and how often they are right is scored."""
