"""Fetches a frozen model from a source; errors name the requesting section of params.yaml."""

from pathlib import Path
from types import ModuleType

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError


def fetch(source: ModuleType, params: BackboneParams, section: str, out: Path) -> None:
    """Fill the folder `out` with a model.

    Args:
        source: module of `adapterbench.backbone.sources`.
        params: the model to fetch.
        section: where `params` stands in params.yaml, such as `bases.mine`.
        out: a folder that does not exist yet.

    Raises:
        UserError: the source does not have it.
    """
    try:
        source.fetch(params, out)
    except UserError as error:
        # sources name the section `backbone` in their messages
        raise UserError(str(error).replace("backbone.", f"{section}.")) from error
