"""Items in, feature shards out: frame sampling, encoders, pooling. Knows no dataset and no Prefect."""
