"""Publication figures, one per file. Each draws nothing but the columns of its `.parquet` twin."""
