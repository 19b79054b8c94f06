"""What tests share: models, datasets, LoRAs and captioners made for them, visitors, a browser's hands, stock pipelines."""
