"""Images and captions: sources, webdataset shards, encoded shards."""
