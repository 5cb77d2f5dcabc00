"""Search engines that are paid by the query: the web, and a web that a model writes."""
