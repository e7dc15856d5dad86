"""Images that people bring: checked as they arrive, kept in memory alone until they are used."""

from collections import OrderedDict
from pathlib import PureWindowsPath
from secrets import token_urlsafe

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from adapterbench.core.errors import UserError
from adapterbench.formats.image import MAX_PIXELS, BadImageError, decode
from adapterbench.report.references import Reference

MAX_BYTES = 10 * 2**20
"""Of an uploaded file."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""Of an uploaded file."""
SIDE = 1024
"""Longest side that is kept, pixels: several times what any image encoder looks at."""
MAX_NAME = 100
"""Characters of a file's name that are kept."""
WAITING = 64
"""Images that may wait for the page to use them, a moment after their upload; the oldest go."""
DECODERS = 2
"""Images that are decoded at a time: a large one takes 200 MB meanwhile."""


def limits() -> str:
    """What may be uploaded, for people."""
    return f"PNG, JPEG or WebP, up to {MAX_BYTES / 2**20:g} MB and {MAX_PIXELS // 10**6} megapixels"


def read_upload(data: bytes, name: str) -> Reference:
    """An uploaded image as RGB on white; its caption is the file's name.

    Raises:
        UserError: too large, or not an image.
    """
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: too many bytes. Use {limits()}")
    try:
        image = decode(data, FORMATS)
    except BadImageError as error:
        raise UserError(f"{name}: {error}. Use {limits()}") from error
    image.thumbnail((SIDE, SIDE))
    return Reference(image, name)


def base_name(path: str) -> str:
    """A file's name without folders of either system, short enough to show."""
    name = "".join(filter(str.isprintable, PureWindowsPath(path).name)) or "image"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}…{name[-8:]}"


class Uploads:
    """The images between their upload and the event that uses them, by a secret token."""

    def __init__(self) -> None:
        self.waiting = OrderedDict[str, Reference]()
        self.decoders = CapacityLimiter(DECODERS)

    async def receive(self, request: Request) -> Response:
        """Answer `POST` of a form with one image in `files`: a list with its token."""
        async with request.form(max_files=1, max_fields=1) as form:
            file = form.get("files")
            if not isinstance(file, UploadFile):
                return PlainTextResponse("The form has no file `files`", 400)
            data, name = await file.read(), base_name(file.filename or "")
        try:
            reference = await to_thread.run_sync(read_upload, data, name, limiter=self.decoders)
        except UserError as error:
            return PlainTextResponse(str(error), 413 if len(data) > MAX_BYTES else 422)
        token = token_urlsafe()
        self.waiting[token] = reference
        while len(self.waiting) > WAITING:
            self.waiting.popitem(last=False)
        return JSONResponse([token])

    def take(self, token: str) -> Reference:
        """The image of a token, which is used up.

        Raises:
            UserError: there is none.
        """
        try:
            return self.waiting.pop(token)
        except KeyError as error:
            raise UserError("That upload is no longer there: upload the image again") from error
