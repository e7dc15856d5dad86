"""A frozen model from the source that its section of `params.yaml` names."""

from pathlib import Path

from adapterbench.core import registry
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError

SOURCES = f"{__package__}.sources"


def fetch(section: str, params: BackboneParams, out: Path) -> None:
    """Fill the folder `out`.

    Args:
        section: where the user finds `params`, such as `bases.mine`.

    Raises:
        UserError: the source does not have it.
    """
    try:
        registry.load(SOURCES, params.source).fetch(params, out)
    except UserError as error:
        # a source speaks of the section that it mostly fills
        raise UserError(str(error).replace("backbone.", f"{section}.")) from error
