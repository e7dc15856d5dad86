"""Uploaded images: checked on arrival, kept in memory, handed over once for a secret token."""

from collections import OrderedDict
from pathlib import PureWindowsPath
from secrets import token_urlsafe

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from adapterbench.core.errors import UserError
from adapterbench.demo.store import ImageStore, StoredImage
from adapterbench.formats.image import MAX_PIXELS, BadImageError, decode
from adapterbench.report.references import Reference

MAX_BYTES = 10 * 2**20
"""Largest uploaded file."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""Accepted formats."""
SIDE = 1024
"""Longest side after scaling down, pixels: several times the input of any image encoder."""
MAX_NAME = 100
"""Most characters of a file name."""
WAITING = 64
"""Most images that wait to be used, normally for a moment; the oldest are dropped."""
DECODERS = 2
"""Images decoded at the same time: a large one needs 200 MB."""


def limits() -> str:
    """The limits of an upload as text."""
    return f"PNG, JPEG or WebP, up to {MAX_BYTES / 2**20:g} MB and {MAX_PIXELS // 10**6} megapixels"


def read_upload(data: bytes, name: str) -> Reference:
    """Decode an uploaded image as RGB on white; its caption is the file name.

    Raises:
        UserError: the file is too large or not an image.
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
    """File name without folders (POSIX or Windows), shortened to `MAX_NAME` characters."""
    name = "".join(filter(str.isprintable, PureWindowsPath(path).name)) or "image"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}…{name[-8:]}"


class Uploads:
    """Uploaded images that wait to be used, by secret token."""

    def __init__(self) -> None:
        self.store = ImageStore()
        """Has the images; `waiting` has their names."""
        self.waiting = OrderedDict[str, StoredImage]()
        self.decoders = CapacityLimiter(DECODERS)

    async def receive(self, request: Request) -> Response:
        """Handle a POST of a form with one image in `files`; respond with a list with its token."""
        async with request.form(max_files=1, max_fields=1) as form:
            file = form.get("files")
            if not isinstance(file, UploadFile):
                return PlainTextResponse("The form has no file `files`", 400)
            data, name = await file.read(), base_name(file.filename or "")
        try:
            stored = await to_thread.run_sync(self.keep, data, name, limiter=self.decoders)
        except UserError as error:
            return PlainTextResponse(str(error), 413 if len(data) > MAX_BYTES else 422)
        token = token_urlsafe()
        self.waiting[token] = stored
        while len(self.waiting) > WAITING:
            self.waiting.popitem(last=False)
        return JSONResponse([token])

    def keep(self, data: bytes, name: str) -> StoredImage:
        """Decode an uploaded image and keep it.

        Raises:
            UserError: see `read_upload`.
        """
        reference = read_upload(data, name)
        return self.store.put(reference.image, reference.caption)

    def take(self, token: str) -> StoredImage:
        """Remove and return the image of a token.

        Raises:
            UserError: the token is unknown or already used.
        """
        try:
            return self.waiting.pop(token)
        except KeyError as error:
            raise UserError("That upload is no longer there: upload the image again") from error
