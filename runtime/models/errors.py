"""What can be wrong with a model, as one tree.

    ModelError (ValueError)
    |-- ModelNotFound        no such file, folder or name, or its source cannot be reached
    |-- WrongChecksum        the bytes are not those that were published
    |-- DamagedModel         cut off, or files and tensors missing or misshapen
    `-- UnsupportedModel     well-formed, but asks for something that is not built here

Each message is one line that names the file and the value at fault.
"""


class ModelError(ValueError):
    """A model cannot be loaded."""


class ModelNotFound(ModelError):
    """No such file, folder or name, or its source cannot be reached."""


class WrongChecksum(ModelError):
    """The bytes are not those that were published."""


class DamagedModel(ModelError):
    """The checkpoint is cut off, or files and tensors are missing or misshapen."""


class UnsupportedModel(ModelError):
    """The checkpoint is well-formed, but asks for something that is not built here."""
