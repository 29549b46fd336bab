"""mce_notebook: a notebook cell becomes a durable, live, labelled dataset."""
