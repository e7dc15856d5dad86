"""A frozen model from a source, whose messages speak of the section that asks for it."""

from pathlib import Path
from types import ModuleType

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError


def fetch(source: ModuleType, params: BackboneParams, section: str, out: Path) -> None:
    """Fill the folder `out`.

    Args:
        source: module of `adapterbench.backbone.sources`.
        params: what to bring.
        section: where the user finds `params`, such as `bases.mine`.

    Raises:
        UserError: the source does not have it.
    """
    try:
        source.fetch(params, out)
    except UserError as error:
        # a source speaks of the section that it mostly fills
        raise UserError(str(error).replace("backbone.", f"{section}.")) from error
