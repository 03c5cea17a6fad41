"""Encoders and T5 in the Hugging Face format: `import_encoder(folder)` and `export_encoder(config, ...)`.

Read format.py, then bert.py, whose tables are the whole knowledge of four families; convert.py uses them
both ways, and refuses by name whatever does not fit. Folders are read and written by `models.hf.files`.
"""

from models.hf_encoders.convert import (
    FORMATS,
    Imported,
    export_encoder,
    import_encoder,
    supported_architectures,
)

__all__ = ["FORMATS", "Imported", "export_encoder", "import_encoder", "supported_architectures"]
