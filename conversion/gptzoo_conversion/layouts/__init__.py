"""One small file for each layout: a column of the weight table, and what its software says in place of config.json."""
