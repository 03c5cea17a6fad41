"""Decoders in the Hugging Face format: `import_model(folder)` and `export_model(config, tensors, folder)`.

One file for each family says what its config.json means and how its tensors are named; `rules` turns
tensors both ways, `files` reads and writes folders, `convert` puts them together.
"""

from models.hf.convert import FORMATS, Imported, export_model, import_model

__all__ = ["FORMATS", "Imported", "export_model", "import_model"]
